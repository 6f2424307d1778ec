"""MMRPT: caption, score, mask, rl, evaluate."""
