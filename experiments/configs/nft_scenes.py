"""DiffusionNFT (arXiv 2509.16117) on scenes: drawing alone, no noise on the way, no densities.

Seed 0, drawn as asked: base 0.12 ± 0.06, generation 0.28 ± 0.09; answered 0.72 and 0.73. One core, 7 min 14 s, 1.6 GiB.

COMMAND: python -m experiments.launch --config=experiments/configs/nft_scenes.py --workdir=runs/nft
"""

from ml_collections import ConfigDict

from experiments.configs import lvrpo_scenes


def get_config() -> ConfigDict:
    """Base and NFT of drawings, from the base that comes with the package."""
    config = lvrpo_scenes.get_config()
    config.title = "DiffusionNFT on scenes"
    config.arms = ("base", "generation")
    config.generation.losses.nft.update(kl="velocity", kl_coefficient=1e-4)
    return config
