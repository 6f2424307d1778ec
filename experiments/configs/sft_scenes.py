"""The supervised control of LVRPO alone: true answers and pictures of its prompts, imitated.

Seed 0, drawn as asked: base 0.12 ± 0.06, sft 0.11 ± 0.06; answered 0.72 and 0.72. One core, 6 min 18 s, 2.1 GiB.

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
