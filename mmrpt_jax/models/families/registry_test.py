import pytest

from mmrpt_jax.models.families.registry import FAMILIES, find_family
from mmrpt_jax.models.weight_table import respelled


def test_a_config_names_its_family():
    assert find_family({"model_type": "smolvlm"}) is FAMILIES["smolvlm"]


def test_names_of_loaded_models_are_read_as_those_of_the_table():
    spellings = FAMILIES["gemma3"].spellings
    for theirs in (
        "model.vision_tower.encoder.x",
        "vision_tower.encoder.x",
        "vision_tower.vision_model.encoder.x",
    ):
        assert respelled(theirs, spellings) == "vision_tower.vision_model.encoder.x"


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {}])
def test_an_unknown_family_is_told_with_the_known_ones(config):
    with pytest.raises(
        ValueError, match=r"model_type .* take a checkpoint of gemma3, idefics3, qwen2_5_vl, "
    ):
        find_family(config)
