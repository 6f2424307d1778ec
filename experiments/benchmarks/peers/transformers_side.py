"""What a user of `transformers` computes for `dependency`: a plain pass, or one with all attention maps."""

import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "grpo"))
from work import json_line, peak_mib, read_argument


def main(mode: str, tokens: int, visual: int, repeats: int, decoder: dict, dtype: str, device: str) -> None:
    """Runs and prints one line.

    Args:
        mode: "plain" or "maps".
        tokens: T.
        visual: how many of them, the first, are the image's.
        repeats: measurements.
        decoder: its `config.json`.
        dtype: of its parameters and activations.
        device: "cpu" or "cuda".
    """
    libraries = peak_mib()
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    torch.set_default_device(device)
    config = transformers.Qwen2Config(
        **decoder | {"max_position_embeddings": tokens},
        attn_implementation="eager" if mode == "maps" else "sdpa",
    )
    model = transformers.AutoModel.from_config(config, dtype=getattr(torch, dtype)).eval()
    weights = torch.cuda.memory_allocated() if device == "cuda" else 0
    ids, caption = torch.ones(1, tokens, dtype=torch.long), torch.arange(tokens) >= tokens // 2

    @torch.no_grad()
    def run():
        found = model(ids, output_attentions=mode == "maps", use_cache=False)
        if mode == "plain":
            return found.last_hidden_state
        seen = [layer[..., caption, :visual] for layer in found.attentions]
        return [(layer.sum(-1), layer.sum(-2)) for layer in seen]

    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    run()
    seconds = []
    for _ in range(repeats):
        start = wait()
        run()
        seconds.append(wait() - start)
    held = (
        torch.cuda.max_memory_allocated() - weights if device == "cuda" else 2**20 * (peak_mib() - libraries)
    )
    json_line(seconds=seconds, held_bytes=held)


if __name__ == "__main__":
    main(**read_argument())
