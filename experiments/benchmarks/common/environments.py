"""Peers in virtual environments of their own, made on demand."""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

SIDES = Path(__file__).parents[1] / "peers"
# A line of JSON, as sides report.
_ASK_JAX = (
    "import jax, json; first = jax.devices()[0];"
    " print(json.dumps({'platform': first.platform, 'kind': first.device_kind}))"
)


class Device(NamedTuple):
    """What JAX computes on.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        kind: what its vendor calls it.
    """

    platform: str
    kind: str


class Peer(NamedTuple):
    """Another program that takes the same step.

    Attributes:
        packages: what pip installs.
        script: its side.
        kinds: what it can do.
        has_lean: whether it has a setting that takes less memory.
    """

    packages: tuple[str, ...]
    script: Path
    kinds: tuple[str, ...]
    has_lean: bool


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "trl": Peer(
            ("trl", "torch", "transformers", "datasets", "pillow"),
            SIDES / "trl_side.py",
            ("text", "vlm"),
            True,
        ),
        "tunix": Peer(("google-tunix",), SIDES / "tunix_side.py", ("text",), False),
    }
)


def add_environments(parser: argparse.ArgumentParser) -> None:
    """Adds `--environments`."""
    parser.add_argument(
        "--environments", type=Path, default=Path("runs/peers"), help="where peers are installed"
    )


def peer_python(name: str, folder: Path) -> Path:
    """The interpreter of a peer's virtual environment in `folder`, which is made where there is none.

    Raises:
        RuntimeError: pip cannot install it; the message ends as pip's does.
    """
    home = folder / name
    python = home / "bin" / "python"
    if (home / "installed").exists():
        return python
    print(f"installing {name} in {home}", flush=True)
    venv.create(home, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", *PEERS[name].packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip cannot install {name}: {done.stderr.strip().splitlines()[-1]}")
    (home / "installed").touch()
    return python


def ask_device() -> Device:
    """What another process of JAX computes on; this one must not open a card whose memory others need whole."""
    return Device(**run_side([sys.executable, "-c", _ASK_JAX], {}))


def side_command(name: str, environments: Path) -> list[str]:
    """The command that runs a side, but for its work; "ours" runs in this very environment."""
    if name == "ours":
        return [sys.executable, "-m", "experiments.benchmarks.grpo.ours"]
    return [str(peer_python(name, environments)), str(PEERS[name].script)]


def run_side(command: Sequence[str], work: Mapping[str, Any]) -> dict[str, Any]:
    """What a side reports, on the last line that it prints, of the work that it is given as JSON.

    Raises:
        RuntimeError: it failed; the message ends as its own does.
    """
    done = subprocess.run([*command, json.dumps(work)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
