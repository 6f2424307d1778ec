"""What the programs of an experiment need of a slice, as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.reporting.table import format_table
from mmrpt_jax.stages.topology.chips import Chip
from mmrpt_jax.stages.topology.compiling import Build, Needs, needs_of
from mmrpt_jax.stages.topology.exchanges import Exchange
from mmrpt_jax.stages.topology.program import Program
from mmrpt_jax.stages.topology.slices import Slice

COLUMNS = (
    "program",
    "shapes",
    "GiB given",
    "GiB made",
    "GiB peak",
    "of chip",
    "TFLOP",
    "GB moved",
    "GB exchanged",
    "ms",
    "MFU",
    "collectives",
)
NOTES = (
    "Estimates for one device, of the program as XLA's compiler makes it; nothing has run. shapes: of its buckets,",
    "that it is compiled for; this is the largest. GiB given: arguments; made: temporaries. TFLOP: as run, with what",
    "is recomputed. GB moved: to and from memory; exchanged: results of collectives. ms: the longest of these three",
    "at the chip's published peaks, so a lower bound (XLA's own estimate has no number for loops, and is left out).",
    "MFU: of the model's FLOPs in that time, so an upper bound.",
)


def measure_programs(
    build: Build, found: Slice, sizes: Mapping[str, int], names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Compiles programs one after the other; rows by `COLUMNS`, with `fits`, and `exchanges` in full.

    Args:
        build: mesh -> programs, by name.
        found: the slice.
        sizes: of the mesh.
        names: of the programs to compile; None: all of them.

    Raises:
        ConfigError: one does not compile, for another reason than its size.
    """
    programs = build(make_mesh(**sizes, devices=found.devices))
    chosen = programs if names is None else names
    return [
        program_row(
            name, programs[name], needs_of(build, name, found.name, sizes, programs[name].trips), found
        )
        for name in chosen
    ]


def program_row(name: str, program: Program, needs: Needs, found: Slice) -> dict[str, Any]:
    """The numbers of one program, in the units of `COLUMNS`."""
    seconds = least_seconds(needs, found.chip)
    return {
        "program": name,
        "shapes": program.variants,
        "GiB given": needs.arguments / 2**30,
        "GiB made": needs.temporaries / 2**30,
        "GiB peak": needs.peak / 2**30,
        "of chip": needs.peak / found.chip.memory,
        "TFLOP": needs.flops / 1e12,
        "GB moved": needs.traffic / 1e9,
        "GB exchanged": exchanged_bytes(needs.exchanges) / 1e9,
        "ms": 1e3 * seconds,
        "MFU": program.flops / len(found.devices) / found.chip.flops / seconds,
        "collectives": _counted(needs.exchanges),
        "fits": needs.fits,
        "exchanges": needs.exchanges,
    }


def least_seconds(needs: Needs, chip: Chip) -> float:
    """What products, memory and links take at their peaks, if all three overlap: max of the three."""
    return max(
        needs.flops / chip.flops,
        needs.traffic / chip.bandwidth,
        exchanged_bytes(needs.exchanges) / chip.links,
    )


def exchanged_bytes(exchanges: Sequence[Exchange]) -> int:
    """Bytes of all results of collectives."""
    return sum(exchange.size * exchange.times for exchange in exchanges)


def _counted(exchanges: Sequence[Exchange]) -> str:
    found: Counter[str] = Counter()
    for exchange in exchanges:
        found[exchange.kind] += exchange.times
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())) or "none"


def describe_rows(rows: Sequence[Mapping[str, Any]], found: Slice, *, title: str) -> str:
    """The table for a reader, and a verdict."""
    memory = f"{found.chip.memory / 2**30:.0f} GiB"
    large = [row["program"] for row in rows if not row["fits"]]
    verdict = f"does not fit: {', '.join(large)}" if large else "all programs fit"
    head = f"{title} on {found.name}: {len(found.devices)} devices of {memory}"
    return "\n".join([head, "", format_table(rows, COLUMNS), "", *NOTES, "", verdict])
