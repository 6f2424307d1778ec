"""What an experiment compiles, with abstract weights and batches: its functions at the largest of their shapes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.models.forward import forward
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.reinforce import loss_options
from mmrpt_jax.stages.mmrpt.rewards import computes_gain
from mmrpt_jax.stages.topology.program import (
    Program,
    abstract_state,
    passes_of_update,
    split_batch,
    whole,
)
from mmrpt_jax.stages.topology.shapes import (
    array,
    branch_shapes,
    flop_shape,
    image_buckets,
    image_shapes,
    prompt_shapes,
)
from mmrpt_jax.training.compute import forward_flops
from mmrpt_jax.training.policy import PolicyBatch, make_policy_step
from mmrpt_jax.training.scoring import make_dependency_scorer, select_layers
from mmrpt_jax.training.state import TrainState, make_optimizer
from mmrpt_jax.training.supervised import SupervisedBatch, hide_images, make_supervised_step

_Step = Callable[[TrainState, PolicyBatch], tuple[TrainState, dict]]
# With the image, once more without its sinks, and without the image.
_SCORING_PASSES = 3


def programs(config: ConfigDict, model: VLMConfig, mesh: Mesh) -> dict[str, Program]:
    """The programs of the stages and arms of a config, by name.

    Args:
        config: of the experiment.
        model: `opening.model_config` of it, or another of the same kind.
        mesh: where they are to run.
    """
    parts = _Parts(config, model, mesh)
    return {name: getattr(parts, name)() for name in _needed(config)}


def _needed(config: ConfigDict) -> list[str]:
    methods, stages = {ARMS[name].method for name in config.arms}, config.stages
    policy, trains = "policy" in methods, "rl" in stages
    needed = {
        "caption": ("caption" in stages and config.caption.steps) or (trains and "caption" in methods),
        "score": "score" in stages,
        "imitate": trains and ("supervised" in methods or (policy and config.fill.warmup_steps)),
        "rollout": trains and policy,
        "gain": trains and policy and computes_gain(config),
        "reference": trains and policy and config.rl.loss.kl != "none",
        "update": trains and policy,
        "answer": "evaluate" in stages,
    }
    return [name for name, wanted in needed.items() if wanted]


def policy_update(
    config: ConfigDict, model: VLMConfig
) -> tuple[_Step, optax.GradientTransformation, PolicyBatch]:
    """The update of stage 4, its optimizer, and the shapes of its batch at the longest lengths."""
    rl, data = config.rl, config.data
    b, g, r = rl.prompts_per_step, rl.group_size, max(data.branch_lengths)
    batch = PolicyBatch(
        image_shapes(config, model, b),
        prompt_shapes(b, max(data.prompt_lengths)),
        branch_shapes(b, g, r),
        array(b, g, r),
        array(b, g),
        array(b, g, dtype=bool),
        None if rl.loss.kl == "none" else array(b, g, r),
    )
    optimizer = make_optimizer(learning_rate=rl.learning_rate, steps=rl.steps)
    step = make_policy_step(
        model, optimizer, **_scoring(config, model), micro_batches=rl.micro_batches, **loss_options(config)
    )
    return step, optimizer, batch


def _scoring(config: ConfigDict, model: VLMConfig) -> dict:
    return {"temperature": config.rl.temperature, "banned": jnp.zeros(model.vocab_size, bool)}


@dataclasses.dataclass(frozen=True)
class _Parts:
    """One method for each program."""

    config: ConfigDict
    model: VLMConfig
    mesh: Mesh

    @functools.cached_property
    def params(self) -> dict:
        return abstract_parameters(self.model, self.mesh)

    @property
    def prompt(self) -> int:
        return max(self.config.data.prompt_lengths)

    @property
    def branch(self) -> int:
        return max(self.config.data.branch_lengths)

    @property
    def buckets(self) -> int:
        return image_buckets(self.config)

    def caption(self) -> Program:
        cfg, lengths = self.config.caption, self.config.data.caption_lengths
        return self._imitation(
            cfg.batch_size, cfg.captions_per_image, max(lengths), cfg.micro_batches, len(lengths)
        )

    def imitate(self) -> Program:
        return self._imitation(
            self.config.fill.batch_size, 1, self.branch, 1, len(self.config.data.branch_lengths)
        )

    def score(self) -> Program:
        cfg, lengths = self.config.score, self.config.data.caption_lengths
        layers = select_layers(self.model.decoder.layers, tuple(cfg.layer_fractions))
        options = {"heads": cfg.heads, "top_k": cfg.top_k, "query_shift": cfg.query_shift}
        score = make_dependency_scorer(self.model, layers=layers, **options)
        branches = branch_shapes(cfg.batch_size, 1, max(lengths))
        flops = _SCORING_PASSES * self._forward_flops(cfg.batch_size, 1, max(lengths))
        arguments = (self.params, *self._inputs(cfg.batch_size), self._placed(branches))
        return Program(score, arguments, flops, variants=self.buckets * len(lengths))

    def rollout(self) -> Program:
        rl = self.config.rl
        prompts = rl.prompts_per_step * rl.oversample
        return self._sampling(prompts, rl.group_size, **_scoring(self.config, self.model))

    def answer(self) -> Program:
        return self._sampling(self.config.evaluate.batch_size, 1, temperature=0.0)

    def gain(self) -> Program:
        rl = self.config.rl
        prompts, lengths = rl.prompts_per_step * rl.oversample, len(self.config.data.branch_lengths)
        once = self._likelihood(functools.partial(_gain, self.model), prompts)
        return once._replace(flops=2 * once.flops, variants=self.buckets * lengths**2)

    def reference(self) -> Program:
        run = functools.partial(_logprobs, self.model, _scoring(self.config, self.model))
        return self._likelihood(run, self.config.rl.prompts_per_step)

    def update(self) -> Program:
        rl = self.config.rl
        step, optimizer, batch = policy_update(self.config, self.model)
        state = abstract_state(self.config, self.params, optimizer, self.mesh)
        flops = self._update_flops(rl.prompts_per_step, rl.group_size, self.branch)
        return Program(step, (state, self._placed(batch)), flops, donated=(0,), variants=self.buckets)

    def _imitation(self, prompts: int, group: int, branch: int, micro: int, lengths: int) -> Program:
        optimizer = make_optimizer(learning_rate=1.0, steps=1)
        step = make_supervised_step(self.model, optimizer, micro_batches=micro)
        shapes = (
            image_shapes(self.config, self.model, prompts),
            prompt_shapes(prompts, self.prompt),
            branch_shapes(prompts, group, branch),
            array(prompts, dtype=bool),
        )
        state = abstract_state(self.config, self.params, optimizer, self.mesh)
        arguments = (state, self._placed(SupervisedBatch(*shapes)))
        flops = self._update_flops(prompts, group, branch)
        return Program(step, arguments, flops, donated=(0,), variants=self.buckets * lengths)

    def _sampling(self, prompts: int, group: int, **options) -> Program:
        rollout = make_rollout(self.model, group_size=group, max_tokens=self.branch, end_ids=(0,), **options)
        arguments = (self.params, *self._inputs(prompts), whole(self.mesh, (), jax.random.key(0).dtype))
        flops = self._forward_flops(prompts, group, self.branch)
        return Program(rollout, arguments, flops, trips=self.branch, variants=self.buckets)

    def _likelihood(self, run: Callable[..., Any], prompts: int) -> Program:
        group = self.config.rl.group_size
        branches = self._placed(branch_shapes(prompts, group, self.branch))
        flops = self._forward_flops(prompts, group, self.branch)
        return Program(run, (self.params, *self._inputs(prompts), branches), flops, variants=self.buckets)

    def _inputs(self, prompts: int):
        images = image_shapes(self.config, self.model, prompts)
        return self._placed((images, prompt_shapes(prompts, self.prompt)))

    def _placed(self, batch):
        return split_batch(self.mesh, batch)

    def _flop_shape(self, prompts: int, group: int, branch: int):
        return flop_shape(self.config, prompts=prompts, group=group, prompt=self.prompt, branch=branch)

    def _update_flops(self, prompts: int, group: int, branch: int) -> float:
        return passes_of_update(self.config) * self._forward_flops(prompts, group, branch)

    def _forward_flops(self, prompts: int, group: int, branch: int) -> float:
        return forward_flops(self.model, **self._flop_shape(prompts, group, branch))


def _logprobs(model: VLMConfig, options: dict, params, *inputs):
    return forward(model, params, *inputs, **options).logprobs


def _gain(model: VLMConfig, params, images, prompt, branches):
    """The two passes of `training.gain`, with the image and without."""
    hidden = hide_images(prompt, jnp.ones(prompt.ids.shape[0], bool))
    return tuple(_logprobs(model, {}, params, images, given, branches) for given in (prompt, hidden))
