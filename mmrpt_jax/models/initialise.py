"""Parameters from a seed, born on their devices."""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.dual_encoder import DualEncoder, DualEncoderConfig
from mmrpt_jax.models.kl_autoencoder import AutoencoderNetwork
from mmrpt_jax.models.latents import LatentTokens
from mmrpt_jax.models.lora import is_adapter
from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.paths import path_of
from mmrpt_jax.models.sharding import RULES, parameter_shardings
from mmrpt_jax.models.unified import copy_experts
from mmrpt_jax.models.unified_config import AutoencoderConfig, LatentConfig, UnifiedConfig
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptTokens

Config = VLMConfig | UnifiedConfig | AutoencoderConfig | DualEncoderConfig


def _whole(params):
    return params


def initialise(
    config: Config,
    key,
    mesh: Mesh | None = None,
    rules: Mapping[str, str | None] = RULES,
    *,
    part: Callable[[dict], dict] = _whole,
):
    """Fresh parameters as a plain nested dict; with a mesh, each is born in its shards, never whole anywhere.

    The values depend on the key alone, not on the mesh. A unified model begins as its vision-language model would
    from the same key, its generation experts as copies.

    Args:
        config: the model.
        key: of the random values.
        mesh: where they live, if not on one device.
        rules: from logical axes to those of the mesh.
        part: takes what is wanted out of the tree, as `lora.adapter_only` does; the rest is never made.
    """
    if mesh is None:
        return _initialise(config, key, part)
    shardings = part(parameter_shardings(abstract_boxes(config), mesh, rules))
    return jax.jit(_unboxed, static_argnums=(0, 2), out_shardings=shardings)(config, key, part)


def abstract_parameters(config: Config, mesh: Mesh | None = None, rules: Mapping[str, str | None] = RULES):
    """Shapes, types and (with a mesh) shardings of all parameters, without computing any."""
    boxed = abstract_boxes(config)
    if mesh is None:
        return nn.unbox(boxed)
    shardings = parameter_shardings(boxed, mesh, rules)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings,
    )


@functools.cache
def abstract_boxes(config: Config):
    """Shapes and types of all parameters, in boxes that carry their logical axes.

    Traced once per model, since every stage asks for it.
    """
    return jax.eval_shape(functools.partial(_boxed, config), jax.random.key(0))


def count_parameters(params) -> int:
    """Number of scalars in a tree of (abstract) parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _boxed(config: Config, key):
    """Parameters in boxes that carry their logical axes."""
    match config:
        case VLMConfig():
            return _stored(VLM(config).init(key, *_smallest_input(config))["params"], config.param_dtype)
        case UnifiedConfig():
            tokens = LatentTokens(config.latent, config.vlm.decoder.width)
            drawn = tokens.init(jax.random.fold_in(key, 0), *_smallest_drawing(config.latent))["params"]
            latents = _stored(drawn, config.vlm.param_dtype)
            return copy_experts(_boxed(config.vlm, key) | {"latents": latents}, config.experts)
        case AutoencoderConfig():
            image = jnp.zeros((1, config.downsample, config.downsample, 3))
            return AutoencoderNetwork(config).init(key, image)["params"]
        case DualEncoderConfig():
            patches = jnp.zeros((1, config.num_patches, config.patch_size**2 * 3))
            ids = jnp.zeros((1, config.text_length), jnp.int32)
            return DualEncoder(config).init(key, patches, ids)["params"]
    raise TypeError(f"there are no parameters for a {type(config).__name__}")


def _stored(boxed, dtype: str):
    """Parameters in the type that they are kept in; adapters stay as they are."""

    def cast(path, box):
        return box if is_adapter(path_of(path)) else jax.tree.map(lambda leaf: leaf.astype(dtype), box)

    return jax.tree.map_with_path(cast, boxed, is_leaf=lambda node: isinstance(node, nn.meta.AxisMetadata))


def _unboxed(config: Config, key, part):
    return part(nn.unbox(_boxed(config, key)))


# Compiled once per model, however often it is called.
_initialise = jax.jit(_unboxed, static_argnums=(0, 2))


def _smallest_input(config: VLMConfig):
    """One visual token, and one word."""
    shape = (1, config.vision.connector.merge**2)
    nowhere = jnp.zeros(shape, jnp.int32)
    pixels = jnp.zeros((*shape, config.vision.patch_pixels), jnp.uint8)
    slot = jnp.ones((1, 1), bool)
    word = jnp.zeros((1, 1), jnp.int32)
    images, prompt = ImagePatches(pixels, nowhere, nowhere, nowhere), PromptTokens(word, slot, slot)
    return images, prompt, BranchTokens(word[None], slot[None])


def _smallest_drawing(config: LatentConfig):
    return jnp.zeros((1, 1, config.num_tokens, config.features)), jnp.zeros((1, 1))
