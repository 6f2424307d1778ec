"""How much host memory the import of a checkpoint takes: `python -m experiments.benchmarks.import_memory`.

Makes a random bfloat16 checkpoint in the shapes of Qwen2.5-0.5B (494 million parameters, 0.99 GB in five files) and
reads it in a fresh process onto the CPU, where the parameters themselves lie in host memory. Linux only.

Measured with jax 0.10.2 on two shared CPU cores, three runs alike: 1.16 times the files at the peak, 1.00 times
afterwards.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig, abstract_parameters
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.weight_table import TRANSPOSE, Weight, flatten

DECODER = TransformerConfig(width=896, layers=24, heads=14, kv_heads=2, head_dim=64, mlp=4864, qkv_bias=True)
VOCAB_SIZE = 151_936
LAYERS_PER_FILE = 6


def decoder_parameters():
    """Abstract parameters of the language model alone."""
    tower = VisionConfig(
        8, 8, 8, TransformerConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8)
    )
    abstract = abstract_parameters(VLMConfig(VOCAB_SIZE, DECODER, tower))
    return {name: abstract[name] for name in ("decoder", "embedding")}


def name_table(abstract) -> list[Weight]:
    """A checkpoint with a tensor for each weight of each layer, matrices of layers as [out in]."""

    def entry(path: str) -> Weight:
        theirs = path.replace("layers/", "layers/{layer}/").replace("/", ".")
        return Weight(path, theirs, *([TRANSPOSE] if path.endswith("kernel") else []))

    return [entry(path) for path in flatten(abstract)]


def write_random(directory: Path) -> None:
    """Writes the checkpoint with NumPy and safetensors alone, file by file."""
    rng, abstract, places = np.random.default_rng(0), decoder_parameters(), {}
    leaves, files = flatten(abstract), {}
    for weight in name_table(abstract):
        shape = leaves[weight.ours].shape
        for layer, name in enumerate(weight.their_names(shape)):
            file = (
                f"model-layers-{layer // LAYERS_PER_FILE}.safetensors"
                if weight.stacked
                else "model-rest.safetensors"
            )
            files.setdefault(file, {})[name] = weight.their_shape(shape)
            places[name] = file
    for file, shapes in files.items():
        bits = {name: rng.integers(0, 2**16, shape, np.uint16) for name, shape in shapes.items()}
        save_file({name: x.view(jnp.bfloat16) for name, x in bits.items()}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def measure(directory: Path) -> str:
    """Reads the checkpoint; tells the peak of this process above what it held before."""
    size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    abstract = decoder_parameters()
    jax.block_until_ready(jax.device_put(np.zeros(1)))
    before, start = _memory("VmRSS"), time.perf_counter()
    params = jax.block_until_ready(
        read_weights(directory, name_table(abstract), abstract, dtype=jnp.bfloat16)
    )
    seconds = time.perf_counter() - start
    held, peak = _memory("VmRSS") - before, _memory("VmHWM") - before
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return (
        f"{count / 1e6:.0f} million parameters, {size / 1e9:.3f} GB of files read in {seconds:.1f} s; "
        f"above the {before / 1e9:.3f} GB of the libraries, {peak / size:.3f} times the files at the peak, "
        f"{held / size:.3f} times afterwards"
    )


def _memory(field: str) -> int:
    """Bytes that the kernel counts for this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="A checkpoint made before, to be measured in this process."
    )
    if directory := parser.parse_args().checkpoint:
        print(measure(directory))
        return
    with tempfile.TemporaryDirectory() as made:
        write_random(Path(made))
        subprocess.run([sys.executable, "-m", __spec__.name, f"--checkpoint={made}"], check=True)


if __name__ == "__main__":
    main()
