from mmrpt_jax.rewards.format import format_reward, is_well_formed


def test_format_reward_pays_for_form_and_not_for_content():
    completions = ["<think>a</think><answer>wrong</answer>", "<think>a</think><answer></answer>", "right"]
    assert format_reward([""] * 3, completions, answer=["right"] * 3) == [1.0, 0.0, 0.0]


def test_is_well_formed():
    assert is_well_formed("<think></think><answer>x</answer>")
    assert not is_well_formed("<think></think><answer>x</answer> and more")
