"""The base model of the embedded world, second half: it learns to fill blanks, and goes on captioning.

COMMAND: python -m experiments.launch --config=experiments/configs/mmrpt_scenes_infill.py --workdir=runs/base
HARDWARE: two CPU cores. WALL TIME: 13 min beside other work. SEED: 1. RESULT: hidden spans filled in the biased /
flipped world 0.27 / 0.16 (0 / 0 before: a caption is no answer), cloze as before (0.71 / 0.47). In place of the first
half, 3,600 steps of which every second asks for a blank leave the model next to blind (cloze 0.57 / 0.34): a caption
has many words to learn from, a blank has two.
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes_base
from mmrpt_jax.assets import SCENES_TOKENIZER, SCENES_WEIGHTS


def get_config() -> ConfigDict:
    """Captions and blanks in turn, from the weights that come with the package."""
    config = mmrpt_scenes_base.get_config()
    config.title = "Base model on scenes: blanks"
    config.seed = 1
    config.init.weights = str(SCENES_WEIGHTS)
    config.init.tokenizer = str(SCENES_TOKENIZER)
    config.caption.steps = 800
    config.caption.learning_rate = 1e-3
    config.caption.infill_every = 2
    return config
