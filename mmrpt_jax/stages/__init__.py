"""The method, stage by stage: caption, score, mask, rl, evaluate. Each can be stopped, goes on, and is skipped when complete."""
