"""What a user of `transformers` computes for `dependency`: a plain pass, or one with all attention maps."""

import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "grpo"))
from work import DECODER, json_line, peak_mib, read_argument


def main(mode: str, tokens: int, visual: int, repeats: int) -> None:
    """Runs and prints one line.

    Args:
        mode: "plain" or "maps".
        tokens: T.
        visual: how many of them, the first, are the image's.
        repeats: measurements.
    """
    libraries = peak_mib()
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        **DECODER | {"max_position_embeddings": tokens},
        attn_implementation="eager" if mode == "maps" else "sdpa",
    )
    model = transformers.Qwen2Model(config).eval()
    ids, caption = torch.ones(1, tokens, dtype=torch.long), torch.arange(tokens) >= tokens // 2

    @torch.no_grad()
    def run():
        found = model(ids, output_attentions=mode == "maps", use_cache=False)
        if mode == "plain":
            return found.last_hidden_state
        seen = [layer[..., caption, :visual] for layer in found.attentions]
        return [(layer.sum(-1), layer.sum(-2)) for layer in seen]

    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    json_line(seconds=seconds, peak_mib=peak_mib(), libraries_mib=libraries)


if __name__ == "__main__":
    main(**read_argument())
