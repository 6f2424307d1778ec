"""Floating-point operations of a step, counted from shapes: what equal-compute controls are matched to.

A product of [m, k] and [k, n] counts 2·m·k·n; norms, activations and softmax are left out; a backward pass counts
twice its forward pass. Padding counts, and so do all keys of a causal query, although attention
leaves out those that it does not see in long sequences.
"""

from mmrpt_jax.models.config import TransformerConfig, VLMConfig
from mmrpt_jax.models.latents import TIME_FEATURES
from mmrpt_jax.models.unified_config import UnifiedConfig


def stack_flops(config: TransformerConfig, tokens: int, keys: int) -> float:
    """A forward pass of `tokens` tokens, each over `keys` keys."""
    attention = config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    weights = config.width * (attention + (3 if config.gated else 2) * config.mlp)
    scores = 2 * config.heads * config.head_dim * keys
    return 2.0 * config.layers * tokens * (weights + scores)


def connector_weights(config: VLMConfig) -> int:
    """Entries of the connector's matrices."""
    connector, width = config.vision.connector, config.decoder.width
    entered = config.vision.transformer.width * (connector.merge**2 if connector.pool == "concat" else 1)
    if connector.hidden == 0:
        return entered * width
    return (width if connector.hidden is None else connector.hidden) * (entered + width)


def forward_flops(
    config: VLMConfig,
    *,
    prompts: int,
    prompt_tokens: int,
    group: int,
    branch_tokens: int,
    patches: int | None = None,
) -> float:
    """A forward pass of shared prompts and their branches, vocabulary head included.

    Sampling the same branches costs the same: each token is run once.

    Args:
        config: the model.
        prompts: B.
        prompt_tokens: P, visual tokens included.
        group: G.
        branch_tokens: R.
        patches: of the images of a prompt; None: those of one image that is given whole.
    """
    vision, width = config.vision, config.decoder.width
    patch = vision.frames * vision.patch_pixels * vision.transformer.width
    connector = connector_weights(config) * (1 + len(vision.deepstack_layers))
    patches = vision.num_patches if patches is None else patches
    image = stack_flops(vision.transformer, patches, patches)
    image += 2.0 * (patches * patch + patches // vision.connector.merge**2 * connector)
    prompt = stack_flops(config.decoder, prompt_tokens, prompt_tokens)
    branches = stack_flops(config.decoder, group * branch_tokens, prompt_tokens + branch_tokens)
    head = 2.0 * group * branch_tokens * width * config.vocab_size
    return prompts * (image + prompt + branches + head)


def update_flops(config: VLMConfig, **shape: int) -> float:
    """Forward and backward pass; takes the arguments of `forward_flops`."""
    return 3.0 * forward_flops(config, **shape)


def drawing_flops(
    config: UnifiedConfig, *, prompts: int, prompt_tokens: int, images: int, looks: int
) -> float:
    """A forward pass of text prompts and of the latents behind them, `looks` times for each of `images` per prompt."""
    decoder, latent = config.vlm.decoder, config.latent
    ends = 4.0 * latent.num_tokens * latent.features * decoder.width
    time = 2.0 * decoder.width * (TIME_FEATURES + decoder.width)
    latents = stack_flops(decoder, latent.num_tokens, prompt_tokens + latent.num_tokens)
    return prompts * (
        stack_flops(decoder, prompt_tokens, prompt_tokens) + images * looks * (latents + ends + time)
    )
