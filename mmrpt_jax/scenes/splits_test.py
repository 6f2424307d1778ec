import itertools

import pytest

from mmrpt_jax.scenes.splits import SPLITS, STREAMS_PER_SPLIT, split_seed
from mmrpt_jax.scenes.world import WORLDS, sample_scene


def test_no_two_splits_share_a_seed():
    ends = [(split_seed(split), split_seed(split, STREAMS_PER_SPLIT - 1)) for split in SPLITS]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(ends))


def test_splits_hold_different_scenes():
    scenes = [sample_scene(WORLDS["biased"], split_seed(split), i) for split in SPLITS for i in range(50)]
    assert len(set(scenes)) == len(scenes)


@pytest.mark.parametrize(("split", "stream"), [("dev", 0), ("train", -1), ("train", STREAMS_PER_SPLIT)])
def test_unknown_split_or_stream_is_refused(split, stream):
    with pytest.raises(ValueError, match="split"):
        split_seed(split, stream)
