"""All controls of MMRPT on the embedded world, three seeds, with robustness under fine-tuning. Not yet run to the end.

COMMAND: python -m experiments.launch --config=experiments/configs/mmrpt_scenes_study.py --workdir=runs/study
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes


def get_config() -> ConfigDict:
    """Every arm, three seeds, a biased fine-tuning set."""
    config = mmrpt_scenes.get_config()
    config.title = "MMRPT on scenes, all controls"
    config.seeds = (0, 1, 2)
    config.arms = ("base", "caption", "sft", "random_masks", "blank_images", "mmrpt")
    config.finetune.steps = 60
    return config
