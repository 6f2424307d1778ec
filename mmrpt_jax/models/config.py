"""Model sizes, as frozen dataclasses: hashable, so that compiled functions can take them as static."""

import dataclasses

# What drawing does not share with understanding; see `UnifiedConfig`.
EXPERTS = ("dense", "moe", "mot")
# What the head of a flow gives; see `LatentConfig`.
PREDICTIONS = ("velocity", "data")
# Matrices of a layer, where they are in its parameters.
PROJECTIONS = ("query", "key", "value", "out", "mlp/gate", "mlp/up", "mlp/down")
# Types of numbers that parameters are kept in and activations computed in.
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters of a stack: see `models.lora`.

    Attributes:
        rank: columns of A, rows of B.
        alpha: what A B is multiplied by, in units of 1/rank.
        targets: names of the `PROJECTIONS` that are adapted, without the parts they lie in.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm blocks: RMSNorm, attention over key blocks, gated MLP.

    Attributes:
        width: D, features of a token.
        layers: L.
        heads: N, query heads.
        kv_heads: K, key-value heads; divides `heads`.
        head_dim: H.
        mlp: F, width of the gated MLP.
        rope_theta: base of the rotary frequencies; 0 switches rotary positions off.
        qk_norm: RMSNorm on each head's queries and keys.
        qkv_bias: biases on the query, key and value projections.
        norm_eps: added to the mean square in RMSNorm.
        query_chunk: queries per attention block; bounds the score matrix to `query_chunk` rows.
        remat: recompute each layer in the backward pass instead of storing it.
        unroll: layers per iteration of the scan; more compile longer and run without loop overhead.
        lora: adapters beside the projections; None computes with the weights alone, adapted or not.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    rope_theta: float = 10_000.0
    qk_norm: bool = False
    qkv_bias: bool = False
    norm_eps: float = 1e-6
    query_chunk: int = 256
    remat: bool = False
    unroll: int = 1
    lora: LoraConfig | None = None

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.rope_theta and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim ({self.head_dim}) must be even")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A ViT: square patches, learned positions, and a `TransformerConfig` without rotary positions."""

    image_height: int
    image_width: int
    patch_size: int
    transformer: TransformerConfig

    def __post_init__(self):
        if self.image_height % self.patch_size or self.image_width % self.patch_size:
            size = f"{self.image_height}x{self.image_width}"
            raise ValueError(f"image size {size} is not a multiple of patch_size {self.patch_size}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches per column and per row."""
        return self.image_height // self.patch_size, self.image_width // self.patch_size

    @property
    def num_patches(self) -> int:
        """I, visual tokens of one image."""
        return self.grid[0] * self.grid[1]


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """A vision tower, a connector and a decoder with tied embeddings.

    Attributes:
        vocab_size: V.
        decoder: the language model.
        vision: the tower.
        image_attention: "causal" shows a visual token only what stands before it; "bidirectional" also the rest of
            its image (BAGEL).
        image_positions: "sequential" gives every visual token a rotary position of its own; "shared" gives an image
            one, like a word (BAGEL).
        param_dtype: what parameters are kept in; adapters, whose steps are small, always in "float32".
        compute_dtype: what activations are, and parameters become where they meet them. Norms, softmax, rotations,
            the head and the ends of a flow compute in float32 either way.
    """

    vocab_size: int
    decoder: TransformerConfig
    vision: VisionConfig
    image_attention: str = "causal"
    image_positions: str = "sequential"
    param_dtype: str = "float32"
    compute_dtype: str = "float32"

    def __post_init__(self):
        _check("image_attention", self.image_attention, ("causal", "bidirectional"))
        _check("image_positions", self.image_positions, ("sequential", "shared"))
        _check("param_dtype", self.param_dtype, DTYPES)
        _check("compute_dtype", self.compute_dtype, DTYPES)


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
    """

    channels: int
    downsample: int
    height: int
    width: int
    pack: int = 2
    prediction: str = "velocity"

    def __post_init__(self):
        _check("prediction", self.prediction, PREDICTIONS)
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
        _check("experts", self.experts, EXPERTS)
        if self.vlm.decoder.width % 4:
            width = self.vlm.decoder.width
            raise ValueError(
                f"positions of latent tokens are quarters of the width ({width}): make it a multiple of 4"
            )


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, known))}")
