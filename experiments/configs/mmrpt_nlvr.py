r"""MMRPT on NLVR v1: sentences that people wrote, true of three boxes of shapes.

COMMAND:
    python -m data_prep.convert --preset=nlvr_v1 --input=FOLDER --output=data/nlvr_v1 --split_fraction validation=0.1
    python -m experiments.launch --config=experiments/configs/mmrpt_nlvr.py --workdir=runs/nlvr \
        --config.data.path=data/nlvr_v1
HARDWARE: one of two CPU cores, shared with other work, 2.3 GiB. WALL TIME: 109 min. SEED: 0.
RESULT, on dev: exact match of 600 masked words with the right / a swapped / no image: base 0.183 / 0.182 / 0.192, sft
0.397 / 0.298 / 0.398, mmrpt 0.447 / 0.330 / 0.387 (each ± 0.04): of the two that learn to fill blanks MMRPT fills more
and alone fills more with the image than without. True or false over the six orders of the boxes, after fine-tuning:
0.544, 0.543, 0.539 with the image, 0.545, 0.546, 0.545 without, where the majority has 0.553: from 1,828 scenes a model
from nothing does not learn to judge a statement.
"""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes


def get_config() -> ConfigDict:
    """Captioning from nothing on 1,828 scenes in six box orders, then base, supervised control and MMRPT."""
    config = mmrpt_scenes.get_config()
    config.title = "MMRPT on NLVR v1"
    config.init.weights = ""
    config.init.tokenizer = ""
    config.data.kind = "records"
    config.data.augment = "permute_boxes"
    config.data.prompt_lengths = (120, 160)
    config.data.caption_lengths = (24, 48)
    config.data.branch_lengths = (12,)
    config.model.vision.image_height = 40
    config.model.vision.image_width = 160
    config.caption.steps = 1000
    config.caption.captions_per_image = 1
    config.finetune.steps = 200
    config.evaluate.fill_items = 600
    return config
