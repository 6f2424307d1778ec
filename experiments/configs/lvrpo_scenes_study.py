"""LVRPO with all its controls, three seeds. Not yet run.

COMMAND: python -m experiments.launch --config=experiments/configs/lvrpo_scenes_study.py --workdir=runs/lvrpo_study
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes


def get_config() -> ConfigDict:
    """Supervision at equal compute, best of G, shuffled and single rewards, one task alone, both."""
    config = lvrpo_scenes.get_config()
    config.title = "LVRPO on scenes, with controls"
    config.seeds = (0, 1, 2)
    config.arms = (
        "base",
        "sft",
        "best_of",
        "shuffled",
        "strict_only",
        "likelihood_only",
        "understanding",
        "generation",
        "lvrpo",
    )
    return config
