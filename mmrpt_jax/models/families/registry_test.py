import pytest

from mmrpt_jax.models.families.registry import FAMILIES, find_family


def test_a_config_names_its_family():
    assert find_family({"model_type": "smolvlm"}) is FAMILIES["smolvlm"]


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {}])
def test_an_unknown_family_is_told_with_the_known_ones(config):
    with pytest.raises(
        ValueError, match=r"model_type .* take a checkpoint of gemma3, idefics3, qwen2_5_vl, "
    ):
        find_family(config)
