"""One GRPO step that every side computes: the same model, prompts of the same tokens, answers of the same length.

This file and the peers' own import nothing of ours: a peer runs in a virtual environment of its own.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of the image: 24 x 24 visual tokens in every size.
PIXELS = 672
LEARNING_RATE = 1e-6
# The ratio is clipped to 1 ± this.
CLIP = 0.2


class Work(NamedTuple):
    """What to compute.

    Attributes:
        kind: "text" or "vlm".
        group: G, answers to one prompt.
        prompt: P, tokens of the prompt; of the VLM's, 576 are an image's.
        answer: R, tokens of every answer; none ends early.
        steps: how many; the first one compiles and is not counted.
        folder: where `material` lies; its `config.json` says how large the model is.
        dtype: what parameters are kept in and activations computed in.
        gpu: whether peers compute on a GPU, as we do then.
        lean: compute in a peer's leanest setting: micro-batches of one answer.
    """

    kind: str
    group: int
    prompt: int
    answer: int
    steps: int
    folder: str
    dtype: str = "float32"
    gpu: bool = False
    lean: bool = False


def from_command_line() -> Work:
    """The work that `grpo_step` gives a side as its only argument."""
    return Work(**read_argument())


def read_argument() -> dict[str, Any]:
    """The JSON that a side is given as its only argument."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=json.loads)
    return parser.parse_args().work


def json_line(**values: Any) -> None:
    """Prints the line that a side's report is."""
    print(json.dumps(values), flush=True)


def model_numbers(work: Work) -> dict[str, Any]:
    """The model's `config.json`."""
    return json.loads(Path(work.folder, "config.json").read_text())


def prompts(work: Work) -> list[str]:
    """Texts of the prompts, of the right number of tokens."""
    return json.loads(Path(work.folder, "prompts.json").read_text())[f"{work.kind}-{work.prompt}"]


def count_letters(prompts: Sequence[str], completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that costs nothing and varies; completions are texts, or conversations of one message."""
    texts = [said if isinstance(said, str) else said[0]["content"] for said in completions]
    return [float(len(text) % 7) for text in texts]


def jax_device(device: Any) -> dict[str, Any]:
    """What `Stopwatch.report` is told of a device of JAX; a CPU does not count its memory."""
    held = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {"device": device.device_kind, "device_bytes": held}


class Stopwatch:
    """Seconds by name, one list for each, and the memory of this process.

    Every side times `step`, in it `collect` (answers, rewards, advantages), and in that `generate`; what is left of the
    step is the update.
    """

    def __init__(self):
        """What is in memory now are the imported libraries."""
        self.seconds: dict[str, list[float]] = {}
        self._libraries = peak_mib()

    def timed(self, name, function, wait=lambda result: result):
        """The same function; each call's time until `wait` has returned is written down."""

        def call(*args, **kwargs):
            start = time.perf_counter()
            result = wait(function(*args, **kwargs))
            self.add(name, time.perf_counter() - start)
            return result

        return call

    def add(self, name: str, seconds: float) -> None:
        """Writes a time down that somebody else has taken."""
        self.seconds.setdefault(name, []).append(seconds)

    def report(
        self,
        work: Work,
        *,
        prompt_tokens: int,
        answer_tokens: int,
        versions: dict[str, str],
        device: str,
        device_bytes: int | None = None,
    ) -> None:
        """Prints the one line that `grpo_step` reads.

        Args:
            work: what was asked for.
            prompt_tokens: of the prompts that were computed.
            answer_tokens: likewise of the answers.
            versions: of the libraries.
            device: what they computed on.
            device_bytes: the most that was in its memory, where it has a memory of its own.

        Raises:
            ValueError: other shapes were computed than were asked for.
        """
        found = (prompt_tokens, answer_tokens)
        if found != (work.prompt, work.answer):
            raise ValueError(f"computed {found} tokens of prompt and answer, asked for {work}")
        medians = {name: statistics.median(values[1:]) for name, values in self.seconds.items()}
        peak = peak_mib()
        memory = {"peak_mib": peak, "libraries_mib": self._libraries}
        if device_bytes is not None:
            memory["device_mib"] = device_bytes / 2**20
        json_line(**medians, **memory, device=device, versions=versions)


def peak_mib() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
