"""Regions of an image as boolean masks: connected components, interiors, margins."""

import numpy as np

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels the 8-connected components of a boolean `[H, W]` mask by flood fill.

    Returns:
      int32 `[H, W]`, 0 outside the mask and 1..n inside, numbered in reading order of their first pixels; and
      n.
    """
    labels = np.zeros(mask.shape, np.int32)
    waiting = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    count = 0
    for start in sorted(waiting):
        if start not in waiting:
            continue
        count += 1
        waiting.remove(start)
        stack = [start]
        while stack:
            y, x = stack.pop()
            labels[y, x] = count
            for dy, dx in _NEIGHBOURS:
                if (y + dy, x + dx) in waiting:
                    waiting.remove((y + dy, x + dx))
                    stack.append((y + dy, x + dx))
    return labels, count


def interior(mask: np.ndarray) -> np.ndarray:
    """Pixels of a boolean `[H, W]` mask whose four neighbours belong to it; the whole mask if there are none."""
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner if inner.any() else mask


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A boolean `[H, W]` mask with everything that lies at most `pixels` rows and columns away from it."""
    wide = mask.copy()
    for shift in range(1, pixels + 1):
        wide[shift:] |= mask[:-shift]
        wide[:-shift] |= mask[shift:]
    tall = wide.copy()
    for shift in range(1, pixels + 1):
        tall[:, shift:] |= wide[:, :-shift]
        tall[:, :-shift] |= wide[:, shift:]
    return tall
