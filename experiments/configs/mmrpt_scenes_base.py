"""The base model of the embedded world, first half: captioned from nothing.

COMMAND: python -m experiments.launch --config=experiments/configs/mmrpt_scenes_base.py --workdir=runs/captions
HARDWARE: two CPU cores. WALL TIME: 56 min beside other work. SEED: 0. RESULT: zero-shot cloze accuracy on the biased /
flipped world 0.72 / 0.47 (chance 0.33), colours 0.90 / 0.67. `mmrpt_scenes_infill.py` goes on from here.
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes


def get_config() -> ConfigDict:
    """Captioning on the biased world from random weights."""
    config = mmrpt_scenes.get_config()
    config.title = "Base model on scenes: captions"
    config.stages = ("caption",)
    config.arms = ()
    config.log_every = 50
    config.save_every = 300
    config.init.weights = ""
    config.init.tokenizer = ""
    config.caption.update(steps=3600, infill_every=0)
    return config
