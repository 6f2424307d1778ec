import pytest

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.families.idefics3 import model_config, weight_table
from mmrpt_jax.models.weight_table import flatten, match_table

# As SmolVLM of 256 million and SmolVLM2 of 2.2 billion parameters have it.
SMALLEST = {
    "scale_factor": 4,
    "text_config": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000,
        "vocab_size": 49_280,
    },
    "vision_config": {
        "hidden_size": 768,
        "image_size": 512,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "patch_size": 16,
    },
}
LARGEST = {
    "scale_factor": 3,
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_hidden_layers": 24,
        "rope_theta": 130_000,
        "vocab_size": 49_280,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}


@pytest.mark.parametrize(("config", "count"), [(SMALLEST, 256_484_928), (LARGEST, 2_246_784_880)])
def test_published_sizes(config, count):
    model = model_config(config)
    parameters = abstract_parameters(model)
    assert count_parameters(parameters) == count
    # Raises where a weight has no name, or part of a tensor of theirs no place.
    match_table(weight_table(model), flatten(parameters))


@pytest.mark.parametrize(
    ("config", "grid", "tokens"),
    # 384 pixels are 27 patches of 14, and 6 pixels that are not looked at.
    [(SMALLEST, (32, 32), 64), (LARGEST, (27, 27), 81)],
)
def test_tokens_of_a_tile(config, grid, tokens):
    vision = model_config(config).vision
    assert (vision.grid, vision.num_tokens) == (grid, tokens)
