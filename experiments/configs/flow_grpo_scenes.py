"""Flow-GRPO (arXiv 2505.05470) on scenes: drawing alone, noise in every step, KL to the base. Not yet run.

COMMAND: python -m experiments.launch --config=experiments/configs/flow_grpo_scenes.py --workdir=runs/flow_grpo
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes


def get_config() -> ConfigDict:
    """Base and GRPO of drawings, from the base that comes with the package."""
    config = lvrpo_scenes.get_config()
    config.title = "Flow-GRPO on scenes"
    config.arms = ("base", "generation")
    config.generation.sampler.update(kind="flow_sde", noise_level=0.7, window=())
    config.generation.advantage.update(combine="sum_then_normalise", scale="group")
    config.generation.losses.grpo.update(kl="exact", kl_coefficient=0.04)
    return config
