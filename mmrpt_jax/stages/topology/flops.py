"""Floating-point operations of a traced function, as it is run: what is computed again counts again."""

import math
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(jaxpr: Jaxpr, *, trips: int = 1) -> float:
    """FLOPs of the products and convolutions of a jaxpr, over all devices.

    XLA's own count has the body of a loop once, however often it runs, and nothing of a kernel. Of a Pallas kernel, all
    of its grid counts, what it skips too.

    Args:
        jaxpr: of the whole function.
        trips: of a `while` loop, whose number of iterations is not known before it runs.
    """
    return sum(_equation(eqn, trips) for eqn in jaxpr.eqns)


def _equation(eqn: JaxprEqn, trips: int) -> float:
    name = eqn.primitive.name
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2.0 * _size(eqn.outvars[0]) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * _size(eqn.outvars[0]) * math.prod(kernel) / outputs
    inner = [count_flops(part, trips=trips) for part in _parts(eqn.params)]
    if name == "cond":
        return max(inner)
    if name == "pallas_call":
        return sum(inner) * math.prod(eqn.params["grid_mapping"].grid)
    if name == "shard_map":
        # Inside stands one device's part.
        return sum(inner) * eqn.params["mesh"].size
    return sum(inner) * {"scan": eqn.params.get("length", 1), "while": trips}.get(name, 1)


def _parts(params: dict[str, Any]) -> list[Jaxpr]:
    """The functions that an equation calls, as branches or as a body."""
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr))
    return [
        x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in leaves if isinstance(x, ClosedJaxpr | Jaxpr)
    ]


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)
