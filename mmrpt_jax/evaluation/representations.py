"""How many directions do states take, and do two losses pull the same parameters the same way?"""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmrpt_jax.training.joint import gradient_cosine


def effective_rank(states: Float[Array, "N D"]) -> float:
    """exp(−Σ p_k ln p_k) with p_k = σ_k / Σ σ, σ the singular values of the centred states.

    Roy & Vetterli (2007), "The effective rank", of a matrix as it is; here the mean over N is taken off first, or one
    direction that all states share would hide the others. A collapse is seen as a fall towards 1.

    Args:
        states: one per row, N ≥ 2.

    Returns:
        Between 1 and min(N − 1, D); 0 if all states are the same, up to rounding.

    Raises:
        ValueError: there are fewer than two states.
    """
    states = np.asarray(states, np.float64)
    if len(states) < 2:
        raise ValueError(f"{len(states)} state has no spread; give two or more")
    spread = np.linalg.svd(states - states.mean(axis=0), compute_uv=False)
    rounding = np.finfo(np.float64).eps * max(states.shape) * np.linalg.norm(states)
    spread = spread[spread > rounding]
    shares = spread / spread.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) if spread.size else 0.0


def gradient_cosine_by_group(gradients_a: Any, gradients_b: Any) -> dict[str, float]:
    """`gradient_cosine` of two gradients of a unified model, group by group of its parameters.

    Groups are the modules at the top (`embedding`, `vision`, `latents`, `generation`); the decoder makes three of them:
    `decoder/attention` (projections), `decoder/mlp` and `decoder/norm` (all scales, also those of queries and keys).

    Returns:
        Cosines in [-1, 1], in alphabetical order; groups where one side is zero everywhere are left out, since nothing
        is shared there.

    Raises:
        ValueError: the gradients belong to different parameters.
    """
    if jax.tree.structure(gradients_a) != jax.tree.structure(gradients_b):
        raise ValueError("the gradients must be trees of the same parameters")
    compared = jax.device_get(_compare(_grouped(gradients_a), _grouped(gradients_b)))
    return {name: float(cosine) for name, (cosine, shared) in sorted(compared.items()) if shared}


@jax.jit
def _compare(a: dict[str, list[Array]], b: dict[str, list[Array]]) -> dict[str, tuple[Array, Array]]:
    """The cosine of each group, and whether both sides have any gradient there."""
    return {name: (gradient_cosine(a[name], b[name]), _any(a[name]) & _any(b[name])) for name in a}


def _grouped(tree: Any) -> dict[str, list[Array]]:
    groups = defaultdict(list)
    for path, leaf in jax.tree.leaves_with_path(tree):
        groups[_group(tuple(part.key for part in path))].append(leaf)
    return dict(groups)


def _group(path: tuple[str, ...]) -> str:
    module, *rest = path
    if module != "decoder":
        return module
    if any(part.endswith("norm") for part in rest):
        return "decoder/norm"
    return "decoder/mlp" if "mlp" in rest else "decoder/attention"


def _any(leaves: list[Array]) -> Bool[Array, ""]:
    return jnp.stack([jnp.any(leaf != 0) for leaf in leaves]).any()
