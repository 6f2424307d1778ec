import pytest

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.families.gemma3 import model_config, weight_table
from mmrpt_jax.models.weight_table import flatten, match_table

VISION = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
SCALING = {"factor": 8.0, "rope_type": "linear"}
# As the 4B and the 12B have it; they say little.
PUBLISHED = {
    "mm_tokens_per_image": 256,
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "rope_scaling": SCALING,
        "sliding_window": 1024,
    },
    "vision_config": VISION,
}
LARGER = PUBLISHED | {
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15_360,
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "rope_scaling": SCALING,
        "sliding_window": 1024,
    }
}


@pytest.mark.parametrize(("config", "count"), [(PUBLISHED, 4_300_079_472), (LARGER, 12_187_325_040)])
def test_published_sizes(config, count):
    model = model_config(config)
    parameters = abstract_parameters(model)
    assert count_parameters(parameters) == count
    # Raises where a weight has no name, or part of a tensor of theirs no place.
    match_table(weight_table(model), flatten(parameters))


def test_every_sixth_layer_sees_everything():
    decoder = model_config(PUBLISHED).decoder
    assert [layer for layer in range(34) if not decoder.local_layers[layer]] == [5, 11, 17, 23, 29]
    assert (decoder.rope.theta, decoder.rope.stretch, decoder.local_rope.theta) == (1e6, 8.0, 1e4)


def test_an_image_is_256_tokens_of_16_patches():
    vision = model_config(PUBLISHED).vision
    assert (vision.grid, vision.connector.merge, vision.num_tokens) == ((64, 64), 4, 256)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"use_bidirectional_attention": True}, "this encoder of texts cannot write any"),
        ({"sliding_window": 100}, "mm_tokens_per_image 256, more than sliding_window 100"),
    ],
)
def test_what_is_refused(numbers, told):
    with pytest.raises(ValueError, match=told):
        model_config({"text_config": numbers, "vision_config": {}})
