"""Sizes of what draws: latents, the autoencoder behind them, and the model that reads and draws."""

import dataclasses

from mmrpt_jax.models.config import VLMConfig, check_choice

# What drawing does not share with understanding; see `UnifiedConfig`.
EXPERTS = ("dense", "moe", "mot")
# What the head of a flow gives; see `LatentConfig`.
PREDICTIONS = ("velocity", "data")


@dataclasses.dataclass(frozen=True)
class LatentConfig:
    """What a unified model draws: the latents of an image autoencoder.

    Attributes:
        channels: C of the autoencoder.
        downsample: pixels per latent, each way.
        height: rows of the latent grid.
        width: columns of the latent grid.
        pack: a token is a square of `pack` x `pack` latents.
        prediction: what the linear head gives: the "velocity" ε − x₀ (BAGEL), or the "data" x₀, of which the velocity
            follows. Noise fills all of a token's numbers, data do not: where a token holds more numbers than the
            decoder is wide, as tokens of pixels do, no decoder can carry a velocity (JiT, arXiv 2511.13720).
        image_marks: ids of the tokens right before and right behind a drawn image, which are part of it (BAGEL); ():
            there are none.
    """

    channels: int
    downsample: int
    height: int
    width: int
    pack: int = 2
    prediction: str = "velocity"
    image_marks: tuple[int, ...] = ()

    def __post_init__(self):
        check_choice("prediction", self.prediction, PREDICTIONS)
        if self.height % self.pack or self.width % self.pack:
            size = f"{self.height}x{self.width}"
            raise ValueError(f"latent grid {size} does not divide into squares of pack {self.pack}")

    @property
    def grid(self) -> tuple[int, int]:
        """Latent tokens per column and per row."""
        return self.height // self.pack, self.width // self.pack

    @property
    def num_tokens(self) -> int:
        """Tokens of one drawn image."""
        return self.grid[0] * self.grid[1]

    @property
    def features(self) -> int:
        """Numbers in one latent token."""
        return self.pack**2 * self.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of a drawn image, in pixels."""
        return self.height * self.downsample, self.width * self.downsample


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """A convolutional KL autoencoder of images; the defaults are those of FLUX.

    Attributes:
        width: channels of the first level.
        multipliers: channels of each level, in multiples of `width`; each level but the last halves the image.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        channels: C, numbers per latent.
        shift: latents are (z − shift) · scale; mean of z over images.
        scale: 1 / standard deviation of z over images.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    channels: int = 16
    shift: float = 0.1159
    scale: float = 0.3611

    @property
    def downsample(self) -> int:
        """Pixels per latent, each way."""
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class UnifiedConfig:
    """A vision-language model that also draws.

    Attributes:
        vlm: what understands.
        latent: what is drawn.
        experts: what drawing does not share with understanding; "dense": nothing, "moe": the MLPs, "mot": every
            weight of the decoder.
    """

    vlm: VLMConfig
    latent: LatentConfig
    experts: str = "mot"

    def __post_init__(self):
        check_choice("experts", self.experts, EXPERTS)
        if self.vlm.decoder.width % 4:
            width = self.vlm.decoder.width
            raise ValueError(
                f"positions of latent tokens are quarters of the width ({width}): make it a multiple of 4"
            )
