"""The base model of the embedded world, captioned from nothing; its weights come with the package."""

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes


def get_config() -> ConfigDict:
    """Captioning on the biased world from random weights."""
    config = mmrpt_scenes.get_config()
    config.title = "Base model on scenes"
    config.stages = ("caption",)
    config.arms = ()
    config.log_every = 50
    config.save_every = 300
    config.init.weights = ""
    config.init.tokenizer = ""
    config.caption.steps = 3600
    config.caption.infill_every = 0
    return config
