"""The method, stage by stage: caption, score, mask, rl, evaluate.

Each stage can be stopped at any point, goes on where it was, and is skipped when complete.
"""
