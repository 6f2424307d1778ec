"""One GRPO step beside its peers: `python -m experiments.benchmarks.grpo_step --peer=trl --peer=tunix`.

All sides compute the same thing in turn, A B A B, each in a process of its own: the same small model in float32, one
prompt, G answers of R tokens, one update; token counts are checked. A peer is installed in a virtual environment on
first use. The table has medians over the rounds, and our ratio to each peer as the median and range of the rounds'.
"""

import itertools
import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.benchmarks.grpo.environments import PEERS, side_command
from experiments.benchmarks.grpo.material import write_material
from experiments.benchmarks.grpo.work import Work
from mmrpt_jax.reporting.table import format_table, write_table

_KIND = flags.DEFINE_multi_enum(
    "kind", ["text"], ["text", "vlm"], "Text alone, or an image of 576 tokens, too."
)
_GROUP = flags.DEFINE_multi_integer("group", [8], "G, answers to one prompt.")
_PROMPT = flags.DEFINE_multi_integer("prompt", [640], "P, tokens of a prompt, those of its image included.")
_ANSWER = flags.DEFINE_multi_integer("answer", [64], "R, tokens of an answer.")
_PEER = flags.DEFINE_multi_enum("peer", [], sorted(PEERS), "Who runs beside us.")
_LEAN = flags.DEFINE_bool("lean", False, "Also run every side in its leanest setting.")
_STEPS = flags.DEFINE_integer("steps", 6, "Steps of a process; the first one is not counted.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes of each side.", lower_bound=1)
_ENVIRONMENTS = flags.DEFINE_string("environments", "runs/peers", "Where peers are installed.")
_OUT = flags.DEFINE_string("out", "", "Stem of <out>.json and <out>.txt; nothing is written if empty.")

COLUMNS = (
    "work",
    "side",
    "step",
    "generate",
    "score",
    "update",
    "MiB",
    "above libraries",
    "times ours",
    "range",
)


def main(_: list[str]) -> None:
    """Entry point."""
    environments = Path(_ENVIRONMENTS.value).absolute()
    folder = environments / "material"
    write_material(folder, itertools.product(_KIND.value, _PROMPT.value))
    commands = {name: side_command(name, environments) for name in ("ours", *_PEER.value)}
    rows: list[dict[str, Any]] = []
    sizes = itertools.product(_KIND.value, _GROUP.value, _PROMPT.value, _ANSWER.value)
    for kind, group, prompt, answer in sizes:
        work = Work(kind, group, prompt, answer, _STEPS.value, str(folder))
        sides = [
            (name, lean)
            for name in commands
            if name == "ours" or kind in PEERS[name].kinds
            for lean in ((False, True) if _LEAN.value and name != "tunix" else (False,))
        ]
        rounds = [
            {side: run_side(commands[side[0]], work._replace(lean=side[1])) for side in sides}
            for _ in range(_ROUNDS.value)
        ]
        rows += summarise(work, rounds)
        print(format_table(rows, COLUMNS, digits=2), flush=True)
        if _OUT.value:
            write_table(_OUT.value, rows, COLUMNS, title="One GRPO step, seconds", digits=2)


def run_side(command: Sequence[str], work: Work) -> dict[str, Any]:
    """What a side reports of its steps.

    Raises:
        RuntimeError: it failed; the message ends as its own does.
    """
    done = subprocess.run([*command, json.dumps(work._asdict())], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summarise(
    work: Work, rounds: Sequence[Mapping[tuple[str, bool], Mapping[str, Any]]]
) -> Iterable[dict[str, Any]]:
    """One row per side: medians over the rounds, and how many times our step it took in each round."""
    for name, lean in rounds[0]:
        reports = [found[name, lean] for found in rounds]
        middle = {
            key: statistics.median(report[key] for report in reports)
            for key in ("step", "collect", "generate", "peak_mib", "libraries_mib")
        }
        ratios = [found[name, lean]["step"] / found["ours", False]["step"] for found in rounds]
        yield {
            "work": f"{work.kind} G={work.group} P={work.prompt} R={work.answer}",
            "side": f"{name}, lean" if lean else name,
            "step": middle["step"],
            "generate": middle["generate"],
            "score": middle["collect"] - middle["generate"],
            "update": middle["step"] - middle["collect"],
            "MiB": round(middle["peak_mib"]),
            "above libraries": round(middle["peak_mib"] - middle["libraries_mib"]),
            "times ours": statistics.median(ratios),
            "range": f"{min(ratios):.2f}-{max(ratios):.2f}",
            "versions": reports[0]["versions"],
        }


if __name__ == "__main__":
    app.run(main)
