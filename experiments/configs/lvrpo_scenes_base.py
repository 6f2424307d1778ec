"""The unified base model of the embedded world: captions, questions and drawings, imitated together.

COMMAND: python -m experiments.launch --config=experiments/configs/lvrpo_scenes_base.py --workdir=runs/unified
HARDWARE: two CPU cores, 2.7 GiB. WALL TIME: 22 min beside other work. SEED: 0.
RESULT: 0.12 of its drawings are as asked (GenEval, biased world), 0.72 / 0.48 of questions are answered right
in the biased / flipped world. Tokens of raw pixels (64 of 192 numbers, 1,000 steps) gave patches of the right colours
and no objects: see `docs/lvrpo.md`.
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes
from mmrpt_jax.assets import SCENES_WEIGHTS


def get_config() -> ConfigDict:
    """Pre-training on the biased world; what understands begins as the base model of MMRPT."""
    config = lvrpo_scenes.get_config()
    config.title = "Unified base model on scenes"
    config.stages = ("pretrain",)
    config.arms = ()
    config.log_every = 50
    config.save_every = 200
    config.init.weights = config.init.autoencoder = ""
    config.init.understanding = str(SCENES_WEIGHTS)
    config.pretrain.steps = 2000
    return config
