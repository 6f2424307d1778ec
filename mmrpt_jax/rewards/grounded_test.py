from mmrpt_jax.rewards import grounded_match

RED = "<think></think><answer>red</answer>"
BLUE = "<think></think><answer>blue</answer>"


def test_pays_the_product_of_match_and_gain():
    # Right and needed: 1 · 0.75. Right but predictable: 1 · 0.0. Wrong: 0, whatever the image says for it.
    rewards = grounded_match(
        ["p"] * 3, [RED, RED, BLUE], answer=["red", "red", "red"], visual_gain=[0.75, 0.0, 1.0]
    )
    assert rewards == [0.75, 0.0, 0.0]


def test_malformed_earns_nothing_and_negative_gain_costs_nothing():
    assert grounded_match(["p"] * 2, ["red", RED], answer=["red", "red"], visual_gain=[0.9, -0.5]) == [
        0.0,
        0.0,
    ]


def test_unscorable_stays_unscorable():
    assert grounded_match(["p"] * 2, [RED, RED], answer=[None, "red"], visual_gain=[0.5, None]) == [
        None,
        None,
    ]
