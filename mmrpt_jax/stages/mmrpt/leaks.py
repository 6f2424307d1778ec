"""How likely are the hidden spans without the image?  Read from the very prompts that the policy is asked."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmrpt_jax.data.prompts import completion, encode_branches
from mmrpt_jax.models.forward import forward
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.gain import answer_tokens
from mmrpt_jax.training.processes import fetch

# (masked captions, hidden spans) -> log p of each span given its masked caption and no image, nats, ≤ 0.
BlindReader = Callable[[Sequence[str], Sequence[str]], Float[np.ndarray, " M"]]


def make_blind_reader(run: Run, params: Any) -> BlindReader:
    """Builds the reader that answers as `params` do, without a thought and without the image.

    The words before a span are not all that a prompt shows: with bidirectional context a later sentence may name what
    an earlier one hides. What such a prompt gives away is known only to a model that reads it.
    """
    size, lengths = run.config.score.batch_size, run.config.data.branch_lengths
    read = jax.jit(functools.partial(_span_logprobs, run.vlm))

    def blind(masked: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " M"]:
        found = []
        for start in range(0, len(masked), size):
            # The last batch is filled up with its first row, so that one program serves all.
            rows = [i if i < len(masked) else start for i in range(start, start + size)]
            prompt = run.processor.prompts([run.wording.fill_prompt(masked[i], images=0) for i in rows])
            texts = [[completion("", answers[i])] for i in rows]
            branches = encode_branches(run.tokenizer, texts, lengths=lengths)
            spans = answer_tokens(run.tokenizer, texts, branches.ids.shape[-1])
            logprobs = fetch(read(params, *run.whole.place((prompt, branches, spans))))
            found.append(logprobs[: len(masked) - start])
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    return blind


def _span_logprobs(config, params, prompt, branches, spans) -> Float[jax.Array, " B"]:
    logprobs = forward(config, params, None, prompt, branches).logprobs
    return jnp.sum(jnp.where(spans, logprobs, 0.0), axis=(1, 2))
