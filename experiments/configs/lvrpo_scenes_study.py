"""LVRPO with all its controls, three seeds: the table of the README, about an hour and a half of two cores.

Drawn as asked, seeds 0, 1 and 2: base 0.12, sft 0.12 / 0.12 / 0.13, best_of 0.13 / 0.22 / 0.09, shuffled 0.14 / 0.01 /
0.00, strict_only 0.24 / 0.23 / 0.25, likelihood_only 0.12 / 0.12 / 0.13, understanding 0.12 / 0.12 / 0.12, generation
0.34 / 0.23 / 0.33, lvrpo 0.24 / 0.34 / 0.35.

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
