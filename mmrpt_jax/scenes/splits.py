"""Seeds reserved for each split, so that training and evaluation never share a stream of scenes."""

STREAMS_PER_SPLIT = 1_000_000
SPLITS = ("train", "finetune", "validation", "test")


def split_seed(split: str, stream: int = 0) -> int:
    """The seed of a split: seeds of one split are `stream` apart, and no two splits share one.

    Args:
      split: One of `SPLITS`; `finetune` is for small question sets that a trained model is fine-tuned on.
      stream: Which of the split's streams, e.g. the seed of a run, in [0, `STREAMS_PER_SPLIT`).

    Returns:
      A seed for `sample_scene`, `describe`, `ask` and `question_at`.

    Raises:
      ValueError: If the split is unknown or the stream is out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of {SPLITS}.")
    if not 0 <= stream < STREAMS_PER_SPLIT:
        raise ValueError(f"The stream of a split lies in [0, {STREAMS_PER_SPLIT}), got {stream}.")
    return SPLITS.index(split) * STREAMS_PER_SPLIT + stream
