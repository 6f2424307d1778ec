import numpy as np
import pytest

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.families.qwen3_vl import model_config, weight_table
from mmrpt_jax.models.rotary import rotary_axes
from mmrpt_jax.models.weight_table import flatten, match_table

# As published for 4B and 8B; counts are those that the hub shows.
PUBLISHED = {
    "text_config": {
        "attention_bias": False,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
LARGER = {
    "text_config": PUBLISHED["text_config"] | {"hidden_size": 4096, "intermediate_size": 12288},
    "tie_word_embeddings": False,
    "vision_config": PUBLISHED["vision_config"]
    | {
        "deepstack_visual_indexes": [8, 16, 24],
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "out_hidden_size": 4096,
    },
}


@pytest.mark.parametrize(("config", "count"), [(PUBLISHED, 4_437_815_808), (LARGER, 8_767_123_696)])
def test_published_sizes(config, count):
    model = model_config(config)
    parameters = abstract_parameters(model)
    assert count_parameters(parameters) == count
    # Raises where a weight has no name, or part of a tensor of theirs no place.
    match_table(weight_table(model), flatten(parameters))


def test_sections_are_interleaved():
    axes = rotary_axes(model_config(PUBLISHED).decoder.rope, 64)
    np.testing.assert_array_equal(axes[:60], [0, 1, 2] * 20)
    np.testing.assert_array_equal(axes[60:], 0)
