import pytest
from ml_collections import ConfigDict

from mmrpt_jax.stages.mmrpt.reinforce import _segments, loss_options


@pytest.mark.parametrize(
    ("steps", "every", "segments"),
    [(5, 0, [(0, 5)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 2, [(0, 2), (2, 4)]), (3, 9, [(0, 3)])],
)
def test_masks_are_refreshed_between_segments(steps, every, segments):
    assert list(_segments(steps, every)) == segments


def test_the_budget_is_the_longest_completion():
    config = ConfigDict(
        {"rl": {"loss": {"variant": "dr_grpo", "kl": "none"}}, "data": {"branch_lengths": (8, 24)}}
    )
    assert loss_options(config) == {"variant": "dr_grpo", "kl": "none", "budget": 24}
