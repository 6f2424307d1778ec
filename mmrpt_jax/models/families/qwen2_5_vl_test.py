import pytest

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.families.qwen2_5_vl import model_config, weight_table
from mmrpt_jax.models.weight_table import flatten, match_table

VISION = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "temporal_patch_size": 2,
}
# As the first releases have it; bytes are those that their index gives, in bfloat16.
PUBLISHED = {
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
    "vision_config": VISION,
}
SMALLER = PUBLISHED | {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "vision_config": VISION | {"out_hidden_size": 2048},
}


@pytest.mark.parametrize(("config", "size"), [(PUBLISHED, 16_584_333_312), (SMALLER, 7_509_245_952)])
def test_published_sizes(config, size):
    model = model_config(config)
    parameters = abstract_parameters(model)
    assert 2 * count_parameters(parameters) == size
    # Raises where a weight has no name, or part of a tensor of theirs no place.
    match_table(weight_table(model), flatten(parameters))


def test_the_later_layout_says_the_same():
    text = {
        key: value for key, value in PUBLISHED.items() if key not in ("vision_config", "tie_word_embeddings")
    }
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")} | text.pop("rope_scaling")
    later = {
        "text_config": text | {"rope_parameters": rope},
        "vision_config": VISION,
        "tie_word_embeddings": False,
    }
    assert model_config(later) == model_config(PUBLISHED)


def test_windows_are_four_tokens_wide():
    vision = model_config(PUBLISHED).vision
    assert (vision.window, vision.connector.merge) == (8, 2)
    full = [layer for layer, local in enumerate(vision.transformer.local_layers) if not local]
    assert full == VISION["fullatt_block_indexes"]


def test_sliding_layers_of_the_decoder():
    sliding = {"use_sliding_window": True, "max_window_layers": 26}
    decoder = model_config(PUBLISHED | sliding).decoder
    assert decoder.local_layers == (False,) * 26 + (True,) * 2
    assert decoder.local_reach == 32768


def test_unknown_rotary_positions_are_refused():
    with pytest.raises(ValueError, match="rotary positions of type 'yarn' are not known"):
        model_config(PUBLISHED | {"rope_scaling": {"type": "yarn", "factor": 4.0}})
