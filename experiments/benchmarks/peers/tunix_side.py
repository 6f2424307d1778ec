"""Tunix's side of `grpo_step`, run by a Python that has `google-tunix`: its GRPO learner on one device. Text only."""

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx
from transformers import AutoTokenizer
from tunix.models.qwen2 import model as qwen2
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

sys.path.insert(0, str(Path(__file__).parents[1] / "grpo"))
from work import (
    CLIP,
    LEARNING_RATE,
    Stopwatch,
    Work,
    count_letters,
    from_command_line,
    jax_device,
    model_numbers,
    prompts,
)


def main(work: Work) -> None:
    """Takes the steps and prints one line about them."""
    watch, shapes = Stopwatch(), set()
    flags.FLAGS.mark_as_parsed()
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    cluster = _cluster(work, mesh)
    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster,
        reward_fns=count_letters,
        algo_config=grpo_learner.GRPOConfig(
            num_generations=work.group, num_iterations=1, beta=0.0, epsilon=CLIP
        ),
    )
    generate = watch.timed("generate", cluster.generate)

    def generate_and_look(*args, **kwargs):
        found = generate(*args, **kwargs)
        lengths = {len(tokens) for tokens in found.tokens}
        shapes.add((found.left_padded_prompt_tokens.shape[1], *lengths))
        return found

    cluster.generate = generate_and_look
    starts = []
    collect = watch.timed("collect", learner._generate_and_compute_advantage, jax.block_until_ready)

    def collect_and_look(*args, **kwargs):
        starts.append(time.perf_counter())
        return collect(*args, **kwargs)

    learner._generate_and_compute_advantage = collect_and_look
    learner.train(grain.MapDataset.source(_Prompts(work)).batch(1).to_iter_dataset())
    jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
    for seconds in np.diff([*starts, time.perf_counter()]):
        watch.add("step", float(seconds))
    [(prompt_tokens, answer_tokens)] = shapes
    versions = {name: version(name) for name in ("google-tunix", "jax", "flax")}
    counted = {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    watch.report(work, **counted, versions=versions, **jax_device(jax.devices()[0]))


def _cluster(work: Work, mesh) -> rl_cluster.RLCluster:
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    config = rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh),
        rollout_engine="vanilla",
        training_config=rl_cluster.RLTrainingConfig(
            actor_optimizer=optax.adamw(LEARNING_RATE),
            eval_every_n_steps=10**9,
            max_steps=work.steps,
            mini_batch_size=1,
            train_micro_batch_size=1,
        ),
        rollout_config=base_rollout.RolloutConfig(
            max_tokens_to_generate=work.answer,
            max_prompt_length=work.prompt,
            kv_cache_size=work.prompt + work.answer + 8,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            # A token that is never drawn in so few steps: no answer ends early.
            eos_tokens=[model_numbers(work)["text_config"]["vocab_size"] - 1],
        ),
    )
    with mesh:
        model = qwen2.Qwen2(qwen2.ModelConfig(**_sizes(work)), rngs=nnx.Rngs(0))
    # Its fresh embedding has unit variance, which makes one token certain; published ones are small.
    embedding = model.embedder.input_embedding
    embedding.value = embedding.value * 0.02
    return rl_cluster.RLCluster(actor=model, reference=None, tokenizer=tokenizer, cluster_config=config)


def _sizes(work: Work) -> dict:
    text = model_numbers(work)["text_config"]
    return {
        "num_layers": text["num_hidden_layers"],
        "vocab_size": text["vocab_size"],
        "embed_dim": text["hidden_size"],
        "hidden_dim": text["intermediate_size"],
        "num_heads": text["num_attention_heads"],
        "head_dim": text["hidden_size"] // text["num_attention_heads"],
        "num_kv_heads": text["num_key_value_heads"],
        "norm_eps": text["rms_norm_eps"],
        "rope_theta": int(text["rope_parameters"]["rope_theta"]),
        "use_tied_embedding": True,
        "dtype": jnp.dtype(work.dtype),
        "param_dtype": jnp.dtype(work.dtype),
    }


class _Prompts:
    def __init__(self, work: Work):
        texts = prompts(work)
        self._rows = [{"prompts": texts[step % len(texts)]} for step in range(work.steps)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, str]:
        return self._rows[index]


if __name__ == "__main__":
    main(from_command_line())
