"""Model sizes, as frozen dataclasses: hashable, so that compiled functions can take them as static."""

import dataclasses
from types import MappingProxyType

# Which pairs of a head an axis of positions turns; see `RotaryConfig`.
LAYOUTS = ("chunked", "interleaved", "restarted")
NORMS = ("rms", "rms_centred", "layer")
# What computes sequences that look at themselves alone -> the platform that it needs.
ATTENTIONS = MappingProxyType({"xla": None, "splash": "tpu", "cudnn": "gpu"})
REMATS = ("none", "keep_attention", "full")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu")
# Learned positions of patches; see `VisionConfig`.
POSITIONS = ("none", "exact", "nearest", "bilinear")
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


def check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    """Checks a name.

    Raises:
        ValueError: it is not known.
    """
    if value not in known:
        raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, known))}")


@dataclasses.dataclass(frozen=True)
class RotaryConfig:
    """Rotary positions: pair i of the H/2 pairs of a head turns by positions[axis_i] · frequency_i.

    Attributes:
        theta: base of the frequencies theta^(−i / (H/2)).
        sections: pairs of each axis of positions, H/2 in all; (): positions have one axis.
        layout: which pairs an axis gets. "chunked": a run of them (Qwen2.5-VL); "interleaved": every A-th of A axes,
            the first axis also what the others leave (Qwen3-VL); "restarted": a run, and the frequencies of each axis
            begin anew (vision towers, whose axes are rows and columns).
        stretch: frequencies are divided by it, so that longer texts turn no further than shorter ones did.
        stretch_band: (low, high), radians per position; frequencies above `high` are not stretched, those below `low`
            in full, and in between the share grows evenly (Llama 3.1); (): all are stretched.
    """

    theta: float = 10_000.0
    sections: tuple[int, ...] = ()
    layout: str = "chunked"
    stretch: float = 1.0
    stretch_band: tuple[float, ...] = ()

    def __post_init__(self):
        check_choice("layout", self.layout, LAYOUTS)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm blocks: norm, attention over key blocks, norm, MLP.

    Attributes:
        width: D, features of a token.
        layers: L.
        heads: N, query heads.
        kv_heads: K, key-value heads; divides `heads`.
        head_dim: H.
        mlp: F, width of the MLP.
        rope: rotary positions, or None.
        local_layers: for each layer whether it sees only what is near; (): none of them.
        local_reach: a local layer sees keys less than so many places away. Places of text are counted in tokens;
            those of patches are numbers of windows, so that 1 is the window of one's own.
        local_rope: rotary positions of local layers; None: those of the others.
        qk_norm: norm on each head's queries and keys.
        qkv_bias: biases on the query, key and value projections.
        out_bias: bias on the projection of what heads saw.
        query_scale: factor on queries; None: 1/sqrt(H).
        score_softcap: c in c·tanh(score/c) on attention scores; 0: none.
        gated: MLP with a gate; otherwise up, activation, down.
        activation: of the MLP.
        mlp_bias: biases in the MLP.
        norm: "rms"; "rms_centred", which stores its scale as the distance from 1; or "layer".
        norm_eps: added to the mean square in norms.
        sandwich_norms: norms also on what attention and MLP add.
        query_chunk: queries per attention block; bounds the score matrix to `query_chunk` rows.
        attention: what computes causal sequences: "xla"; or a kernel, "splash" for TPUs, which computes prompts and
            their branches as one unless those are packed, or "cudnn" for GPUs, which computes prompts. Needs layers
            that see everything before.
        remat: what of a layer is not stored but computed anew in the backward pass: "none"; "keep_attention", all but
            what attention gave, which is small and took long ("cudnn" shows nothing of that); or "full".
        unroll: layers per iteration of the scan; more compile longer and run without loop overhead.
        lora: adapters beside the projections; None computes with the weights alone, adapted or not.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    rope: RotaryConfig | None = RotaryConfig()
    local_layers: tuple[bool, ...] = ()
    local_reach: int = 1
    local_rope: RotaryConfig | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    query_scale: float | None = None
    score_softcap: float = 0.0
    gated: bool = True
    activation: str = "silu"
    mlp_bias: bool = False
    norm: str = "rms"
    norm_eps: float = 1e-6
    sandwich_norms: bool = False
    query_chunk: int = 256
    attention: str = "xla"
    remat: str = "none"
    unroll: int = 1
    lora: LoraConfig | None = None

    def __post_init__(self):
        check_choice("norm", self.norm, NORMS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("remat", self.remat, REMATS)
        check_choice("attention", self.attention, tuple(ATTENTIONS))
        if self.attention != "xla" and any(self.local_layers):
            raise ValueError(f"attention {self.attention!r} has no sliding windows: use 'xla'")
        if self.attention == "cudnn" and self.score_softcap:
            raise ValueError("attention 'cudnn' has no soft cap on scores: use 'xla'")
        if self.attention == "cudnn" and self.head_dim % 8:
            raise ValueError(
                f"attention 'cudnn' takes heads of 8, 16, ... numbers, not {self.head_dim}: use 'xla'"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.local_layers and len(self.local_layers) != self.layers:
            raise ValueError(f"local_layers names {len(self.local_layers)} layers of {self.layers}: name all")
        for rope in filter(None, (self.rope, self.local_rope)):
            if self.head_dim % 2:
                raise ValueError(f"rotary positions turn pairs: head_dim ({self.head_dim}) must be even")
            if rope.sections and sum(rope.sections) != self.head_dim // 2:
                raise ValueError(
                    f"rotary sections {rope.sections} must add up to half of head_dim ({self.head_dim})"
                )


@dataclasses.dataclass(frozen=True)
class ConnectorConfig:
    """From patches of the tower to visual tokens of the decoder.

    Attributes:
        merge: m; a visual token is a square of m x m patches.
        pool: how patches become one: "concat" (row by row; also known as pixel shuffle) or "mean".
        norm: norm on what they became, or None.
        norm_eps: its epsilon.
        hidden: width between two linear maps; None: the decoder's; 0: there is only one map.
        activation: between them.
        bias: whether they have biases.
    """

    merge: int = 1
    pool: str = "concat"
    norm: str | None = None
    norm_eps: float = 1e-6
    hidden: int | None = None
    activation: str = "gelu_tanh"
    bias: bool = True

    def __post_init__(self):
        check_choice("pool", self.pool, ("concat", "mean"))
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.norm is not None:
            check_choice("norm", self.norm, NORMS)


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A ViT: square patches, positions, a `TransformerConfig` and a connector.

    Attributes:
        image_height: rows of pixels of an image that is given whole; learned positions were learned on its grid.
        image_width: likewise columns. Images that are given as patches may have any size.
        patch_size: pixels per patch, each way.
        transformer: the tower; rotary positions, if it has any, turn by row and column.
        positions: learned positions: "none"; "exact", that of the row and column; "nearest" and "bilinear", what is
            learned where the grid of the image, stretched over the learned one, has the patch.
        window: patches per window, each way; local layers see their window.
        frames: times that an image is repeated before it is cut; towers of videos see a still image twice.
        patch_bias: bias on the embedding of patches.
        pixel_mean: of red, green and blue, in [0, 1]; what is subtracted.
        pixel_std: likewise what is divided by.
        connector: from patches to visual tokens.
        token_positions: adds fixed positions (sin and cos of row and column) to visual tokens.
        deepstack_layers: layers of the tower whose features, too, become visual tokens: those of the i-th are added
            to what the decoder's i-th layer says of the image (DeepStack, arXiv 2406.04334).
    """

    image_height: int
    image_width: int
    patch_size: int
    transformer: TransformerConfig
    positions: str = "exact"
    window: int = 0
    frames: int = 1
    patch_bias: bool = True
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    connector: ConnectorConfig = ConnectorConfig()
    token_positions: bool = False
    deepstack_layers: tuple[int, ...] = ()

    def __post_init__(self):
        check_choice("positions", self.positions, POSITIONS)
        if self.image_height % self.patch_size or self.image_width % self.patch_size:
            size = f"{self.image_height}x{self.image_width}"
            raise ValueError(f"image size {size} is not a multiple of patch_size {self.patch_size}")
        if any(count % self.connector.merge for count in self.grid):
            size, merge = "x".join(map(str, self.grid)), self.connector.merge
            raise ValueError(f"a grid of {size} patches does not divide into squares of merge {merge}")
        if any(self.transformer.local_layers) and not self.window:
            raise ValueError(
                "the vision tower has local layers: say in `window` how many patches they see each way"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Patches per column and per row of an image that is given whole."""
        return self.image_height // self.patch_size, self.image_width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image that is given whole."""
        return self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        """I, visual tokens of an image that is given whole."""
        return self.num_patches // self.connector.merge**2

    @property
    def patch_pixels(self) -> int:
        """Numbers in one patch."""
        return self.patch_size**2 * 3


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """A vision tower with its connector, and a decoder.

    Attributes:
        vocab_size: V.
        decoder: the language model.
        vision: the tower.
        image_attention: "causal" shows a visual token only what stands before it; "bidirectional" also the rest of
            its image (BAGEL, Gemma 3).
        image_positions: "sequential" gives every visual token a rotary position of its own; "shared" gives an image
            one, like a word (BAGEL); "grid" turns by three axes: where the image begins, its row, its column; what
            follows goes on behind the longer side (Qwen2-VL, arXiv 2409.12191).
        image_marks: the tokens right before and right behind an image are part of it, for attention and for "shared"
            positions (BAGEL).
        scale_embeddings: multiplies embeddings by sqrt(D).
        tied: the output matrix is the embedding; otherwise it is `lm_head`.
        logit_softcap: c in c·tanh(logit/c); 0: none.
        param_dtype: what parameters are kept in; adapters, whose steps are small, always in "float32".
        compute_dtype: what activations are, and parameters become where they meet them. Norms, softmax, rotations,
            the head and the ends of a flow compute in float32 either way.
    """

    vocab_size: int
    decoder: TransformerConfig
    vision: VisionConfig
    image_attention: str = "causal"
    image_positions: str = "sequential"
    image_marks: bool = False
    scale_embeddings: bool = True
    tied: bool = True
    logit_softcap: float = 0.0
    param_dtype: str = "float32"
    compute_dtype: str = "float32"

    def __post_init__(self):
        check_choice("image_attention", self.image_attention, ("causal", "bidirectional"))
        check_choice("image_positions", self.image_positions, ("sequential", "shared", "grid"))
        check_choice("param_dtype", self.param_dtype, DTYPES)
        check_choice("compute_dtype", self.compute_dtype, DTYPES)
        if self.image_attention == "bidirectional" and self.decoder.attention != "xla":
            raise ValueError(f"attention {self.decoder.attention!r} is causal, and images are not: use 'xla'")
        if self.image_positions == "grid" and len(self.decoder.rope.sections) != 3:
            raise ValueError(
                "image_positions 'grid' turns by three axes: give the decoder's rope three sections"
            )
