"""The methods, stage by stage, as configs describe them: one folder each, and what they share.

Each stage can be stopped at any point, goes on where it was, and is skipped when complete.
"""
