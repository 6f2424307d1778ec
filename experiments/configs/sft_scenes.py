"""The supervised control of LVRPO alone: true answers and pictures of its prompts, imitated. Not yet run.

COMMAND: python -m experiments.launch --config=experiments/configs/sft_scenes.py --workdir=runs/sft
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes


def get_config() -> ConfigDict:
    """Base and supervised control, with the compute that LVRPO would spend."""
    config = lvrpo_scenes.get_config()
    config.title = "Supervised fine-tuning on scenes"
    config.arms = ("base", "sft")
    return config
