"""BAGEL (arXiv 2505.14683): Qwen2.5 with twins of all weights for what is drawn, SigLIP, and the latents of FLUX.

Its folder has no one `config.json` that says everything: there are `llm_config.json` and `vit_config.json`, and much
stands only in BAGEL's own code. What the shapes of the tensors tell is read from them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.models.config import ConnectorConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.families.lineage import (
    activation,
    decoder_sizes,
    decoder_weights,
    linear,
    norm,
    rotary_config,
)
from mmrpt_jax.models.families.siglip_tower import TOWER, tower_config, tower_weights
from mmrpt_jax.models.json_file import read_json_object
from mmrpt_jax.models.latents import grid_positions
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.models.weight_table import Weight

Shapes = Mapping[str, tuple[int, ...]]

_PARTS = ("llm_config", "vit_config")
# What its own code opens.
WEIGHTS_NAME = "ema.safetensors"
# The tokens around an image, whether it is seen or drawn.
IMAGE_MARKS = ("<|vision_start|>", "<|vision_end|>")
# The autoencoder of what is drawn, in the same folder.
AUTOENCODER = "ae.safetensors"
# Fixed positions are in the checkpoint too, for squares as large as any image may be. We compute them.
_LATENT_POSITIONS, _VISION_POSITIONS = "latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"
IGNORED = (_LATENT_POSITIONS, _VISION_POSITIONS)
_TOWER = "vit_model.vision_model."
# Of SigLIP's numbers, what the folder's `vit_config.json` may leave out.
_LEFT_OUT = {name: TOWER[name] for name in ("hidden_act", "layer_norm_eps")}


def is_ours(folder: Path) -> bool:
    """Whether a folder is laid out as BAGEL's: other checkpoints keep all their numbers in `config.json`."""
    return all((folder / f"{part}.json").is_file() for part in _PARTS)


def weights_file(folder: Path) -> Path:
    """Where the weights are: those that were averaged over training, if they are there; else what the folder holds."""
    averaged = folder / WEIGHTS_NAME
    return averaged if averaged.exists() else folder


def read_config(folder: Path) -> dict[str, Any]:
    """What the folder's JSON files say: `config.json` if there is one, and each part under the name of its file."""
    whole = folder / "config.json"
    config = read_json_object(whole) if whole.exists() else {}
    return config | {part: read_json_object(folder / f"{part}.json") for part in _PARTS}


def model_config(
    config: Mapping[str, Any],
    shapes: Shapes,
    *,
    image_marks: tuple[int, int],
    image_size: tuple[int, int] | None = None,
) -> UnifiedConfig:
    """Our config.

    Args:
        config: from `read_config`.
        shapes: of the checkpoint's tensors.
        image_marks: what the folder's tokenizer makes of `IMAGE_MARKS`.
        image_size: height and width of the images to draw, in pixels; None: the largest square that there are positions
            for.

    Raises:
        ValueError: images of a size that cannot be drawn, positions of another kind, or a tensor that is not there.
    """
    if config.get("interpolate_pos"):
        raise ValueError("interpolate_pos is set: positions that are stretched over the image are not known")
    text = config["llm_config"]
    decoder = TransformerConfig(
        **decoder_sizes(text),
        rope=rotary_config(text),
        qk_norm=True,
        qkv_bias=True,
        activation=activation(text["hidden_act"]),
    )
    vlm = VLMConfig(
        vocab_size=text["vocab_size"],
        decoder=decoder,
        vision=_vision(config, shapes),
        image_attention="bidirectional",
        image_positions="shared",
        image_marks=True,
        scale_embeddings=False,
        tied=False,
    )
    return UnifiedConfig(vlm, _latent(config, shapes, image_marks, image_size))


def _vision(config: Mapping[str, Any], shapes: Shapes) -> VisionConfig:
    vision = config["vit_config"]
    # `num_hidden_layers` counts a layer more than there are: features are those of the last but one.
    layers = sum(name.startswith(_TOWER) and name.endswith(".layer_norm1.weight") for name in shapes)
    tower = tower_config({**_LEFT_OUT, **vision, "num_hidden_layers": layers})
    patch = vision["patch_size"]
    side = _side(shapes, f"{_TOWER}embeddings.position_embedding.weight") * patch
    connector = ConnectorConfig(activation=activation(config.get("connector_act", "gelu_pytorch_tanh")))
    return VisionConfig(side, side, patch, tower, connector=connector, token_positions=True)


def _latent(
    config: Mapping[str, Any],
    shapes: Shapes,
    image_marks: tuple[int, int],
    image_size: tuple[int, int] | None,
) -> LatentConfig:
    pack = config.get("latent_patch_size", 2)
    downsample = config.get("vae_config", {}).get("downsample", 8)
    # Not `max_latent_size`, which may be the 32 of BAGEL's code where the weights were trained with 64.
    token = pack * downsample
    side = _side(shapes, _LATENT_POSITIONS) * token
    height, width = image_size or (side, side)
    if max(height, width) > side or height % token or width % token:
        raise ValueError(
            f"images of {height}x{width} pixels cannot be drawn: sides must be multiples of {token}, and the "
            f"checkpoint has positions for {side}x{side}"
        )
    return LatentConfig(
        channels=_shape(shapes, "vae2llm.weight")[1] // pack**2,
        downsample=downsample,
        height=height // downsample,
        width=width // downsample,
        pack=pack,
        image_marks=image_marks,
    )


def _side(shapes: Shapes, name: str) -> int:
    """Rows of a square of positions that lies flat in the checkpoint."""
    return math.isqrt(_shape(shapes, name)[0])


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(
            f"the checkpoint has no {name}, whose shape tells a size of the model: is it BAGEL's, and whole?"
        )
    return shapes[name]


def weight_table(model: UnifiedConfig) -> list[Weight]:
    """Our weights and theirs; the decoder's stand there twice, once `_moe_gen`."""
    decoder = decoder_weights("language_model.model.", head="language_model.lm_head")
    return [
        *decoder,
        *(_twin(weight) for weight in decoder if weight.ours.startswith("decoder/")),
        # A convolution made linear: a flat patch counts row, column, channel, as ours does.
        *linear("vision/patch_embedding", f"{_TOWER}embeddings.patch_embedding"),
        Weight("vision/positions", f"{_TOWER}embeddings.position_embedding.weight"),
        *tower_weights("vision/stack", f"{_TOWER}encoder"),
        *norm("vision/stack/final_norm", f"{_TOWER}post_layernorm"),
        *linear("vision/connector_in", "connector.fc1"),
        *linear("vision/connector_out", "connector.fc2"),
        *linear("latents/inward", "vae2llm"),
        *linear("latents/time_in", "time_embedder.mlp.0"),
        *linear("latents/time_out", "time_embedder.mlp.2"),
        *linear("latents/outward", "llm2vae"),
    ]


def _twin(weight: Weight) -> Weight:
    """The same weight of the experts that draw."""
    module, kind = weight.theirs.rsplit(".", 1)
    theirs = module.replace(".mlp.", ".mlp_moe_gen.") if ".mlp." in module else f"{module}_moe_gen"
    return weight._replace(ours=weight.ours.replace("decoder/", "generation/", 1), theirs=f"{theirs}.{kind}")


def fixed_tables(model: UnifiedConfig, shapes: Shapes) -> dict[str, np.ndarray]:
    """The `IGNORED` tensors, computed: BAGEL's own code does not load a checkpoint without them.

    Args:
        model: the model.
        shapes: of the tensors of the checkpoint that it came from.
    """
    width = model.vlm.decoder.width
    return {name: np.asarray(grid_positions(*[_side(shapes, name)] * 2, width)) for name in IGNORED}
