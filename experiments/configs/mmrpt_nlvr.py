r"""MMRPT on NLVR v1: sentences that people wrote. Not yet run to the end.

COMMAND:
    python -m data_prep.convert --preset=nlvr_v1 --input=FOLDER --output=data/nlvr_v1 --split_fraction validation=0.1
    python -m experiments.launch --config=experiments/configs/mmrpt_nlvr.py --workdir=runs/nlvr \
        --config.data.path=data/nlvr_v1
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
