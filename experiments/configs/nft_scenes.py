"""DiffusionNFT (arXiv 2509.16117) on scenes: drawing alone, no noise on the way, no densities. Not yet run.

COMMAND: python -m experiments.launch --config=experiments/configs/nft_scenes.py --workdir=runs/nft
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes


def get_config() -> ConfigDict:
    """Base and NFT of drawings, from the base that comes with the package."""
    config = lvrpo_scenes.get_config()
    config.title = "DiffusionNFT on scenes"
    config.arms = ("base", "generation")
    config.generation.algorithm = "nft"
    config.generation.sampler.update(kind="ode", window=())
    return config
