import pytest

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.families.siglip import model_config, weight_table
from mmrpt_jax.models.weight_table import flatten, match_table


def test_published_size():
    """SigLIP 2, base, patches of 16 pixels; a cosine leaves the checkpoint's scale and bias out."""
    config = {
        "model_type": "siglip",
        "text_config": {"vocab_size": 256_000},
        "vision_config": {"image_size": 256},
    }
    model = model_config(config)
    parameters = abstract_parameters(model)
    assert count_parameters(parameters) == 375_234_050 - 2
    match_table(weight_table(model), flatten(parameters))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "siglip2"}, "model_type 'siglip2'; take a SigLIP or SigLIP 2 of fixed resolution"),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "without the pooling head"),
    ],
)
def test_what_is_refused(config, told):
    with pytest.raises(ValueError, match=told):
        model_config(config)
