"""What an experiment compiles, with abstract weights and batches: its functions at the largest of their shapes."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.reinforce import loss_options
from mmrpt_jax.stages.mmrpt.rewards import computes_gain
from mmrpt_jax.stages.rollouts import answer_layouts, rollout_size
from mmrpt_jax.stages.topology.program import Program, abstract_state, split_batch
from mmrpt_jax.stages.topology.shapes import array, branch_shapes, image_shapes, prompt_shapes
from mmrpt_jax.stages.topology.texts import Texts
from mmrpt_jax.stages.trained import sampling_as_configured
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
    def texts(self) -> Texts:
        params = abstract_parameters(self.model, self.mesh)
        return Texts(self.config, self.model, params, self.mesh)

    def caption(self) -> Program:
        cfg, lengths = self.config.caption, self.config.data.caption_lengths
        program = self._imitation(cfg.batch_size, cfg.captions_per_image, max(lengths), cfg.micro_batches)
        return program._replace(variants=program.variants * len(lengths))

    def imitate(self) -> Program:
        lengths = self.config.data.branch_lengths
        program = self._imitation(self.config.fill.batch_size, 1, max(lengths), 1)
        return program._replace(variants=program.variants * len(lengths))

    def score(self) -> Program:
        cfg, lengths = self.config.score, self.config.data.caption_lengths
        layers = select_layers(self.model.decoder.layers, tuple(cfg.layer_fractions))
        options = {"heads": cfg.heads, "top_k": cfg.top_k, "query_shift": cfg.query_shift}
        captions = split_batch(self.mesh, branch_shapes(cfg.batch_size, 1, max(lengths)))
        return Program(
            make_dependency_scorer(self.model, layers=layers, **options),
            (self.texts.params, *self.texts.inputs(cfg.batch_size), captions),
            _SCORING_PASSES * self.texts.forward_flops(cfg.batch_size, 1, max(lengths)),
            variants=self.texts.buckets * len(lengths),
        )

    def rollout(self) -> Program:
        rl, options = self.config.rl, _scoring(self.config, self.model)
        program = self.texts.sampled(rollout_size(rl), rl.group_size, self.texts.longest, **options)
        return program._replace(run=sampling_as_configured(self.config, self.model, program.run))

    def answer(self) -> Program:
        return self.texts.sampled(self.config.evaluate.batch_size, 1, self.texts.longest, temperature=0.0)

    def gain(self) -> Program:
        rl, lengths = self.config.rl, len(self.config.data.branch_lengths)
        seeing = self.texts.scored(rollout_size(rl), rl.group_size)

        def both(params, images, prompt, branches):
            """The two passes of `training.gain`, with the image and without."""
            blind = hide_images(prompt, jnp.ones(prompt.ids.shape[0], bool))
            return [seeing.run(params, images, given, branches) for given in (prompt, blind)]

        return seeing._replace(run=both, flops=2 * seeing.flops, variants=seeing.variants * lengths**2)

    def reference(self) -> Program:
        rl = self.config.rl
        program = self.texts.scored(rl.prompts_per_step, rl.group_size, **_scoring(self.config, self.model))
        return program._replace(variants=program.variants * answer_layouts(rl))

    def update(self) -> Program:
        rl = self.config.rl
        step, optimizer, batch = policy_update(self.config, self.model)
        flops = self.texts.update_flops(rl.prompts_per_step, rl.group_size, self.texts.longest)
        program = self._training(step, optimizer, batch, flops)
        return program._replace(variants=program.variants * answer_layouts(rl))

    def _imitation(self, prompts: int, group: int, tokens: int, micro_batches: int) -> Program:
        optimizer = make_optimizer(learning_rate=1.0, steps=1)
        step = make_supervised_step(self.model, optimizer, micro_batches=micro_batches)
        shapes = (branch_shapes(prompts, group, tokens), array(prompts, dtype=bool))
        batch = SupervisedBatch(*self.texts.inputs(prompts), *shapes)
        return self._training(step, optimizer, batch, self.texts.update_flops(prompts, group, tokens))

    def _training(self, step, optimizer, batch, flops: float) -> Program:
        state = abstract_state(self.config, self.texts.params, optimizer, self.mesh)
        arguments = (state, split_batch(self.mesh, batch))
        return Program(step, arguments, flops, donated=(0,), variants=self.texts.buckets)
