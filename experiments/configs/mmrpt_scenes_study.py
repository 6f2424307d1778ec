"""All controls of MMRPT on the embedded world, three seeds, with robustness under fine-tuning.

COMMAND: python -m experiments.launch --config=experiments/configs/mmrpt_scenes_study.py --workdir=runs/study
HARDWARE: two CPU cores, below 2.4 GiB. WALL TIME: about an hour. SEEDS: 0, 1, 2. RESULT: spans filled in the biased /
flipped world: sft 0.45 / 0.27, mmrpt 0.39 / 0.27; colours alone 0.53 / 0.32 and 0.44 / 0.36. README has the table.
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
