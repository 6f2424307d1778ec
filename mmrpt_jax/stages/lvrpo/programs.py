"""What an experiment compiles, with abstract weights and batches: its functions at the largest of their shapes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.sampling import Conditions, FlowSampler, make_image_rollout
from mmrpt_jax.stages.lvrpo.align import image_sampler, policy_tasks, policy_velocity
from mmrpt_jax.stages.lvrpo.arms import ARMS, Arm, algorithm_of, needs_reference
from mmrpt_jax.stages.lvrpo.examiner import drawing_sampler
from mmrpt_jax.stages.lvrpo.pretrain import imitation_tasks
from mmrpt_jax.stages.rollouts import answer_layouts, rollout_size
from mmrpt_jax.stages.topology.program import (
    Program,
    abstract_state,
    passes_of_update,
    split_batch,
    whole,
)
from mmrpt_jax.stages.topology.shapes import array, branch_shapes, prompt_shapes
from mmrpt_jax.stages.topology.texts import Texts
from mmrpt_jax.stages.trained import sampling_as_configured
from mmrpt_jax.training.compute import drawing_flops
from mmrpt_jax.training.drawing import DrawingBatch
from mmrpt_jax.training.image_policy import DrawnBatch
from mmrpt_jax.training.joint import Task, make_joint_step
from mmrpt_jax.training.policy import PolicyBatch
from mmrpt_jax.training.state import make_optimizer
from mmrpt_jax.training.supervised import SupervisedBatch


def programs(config: ConfigDict, model: UnifiedConfig, mesh: Mesh) -> dict[str, Program]:
    """The programs of the stages and arms of a config, by name; those of policies for the first arm that has one.

    Args:
        config: of the experiment.
        model: `opening.unified_config` of it, or another of the same kind.
        mesh: where they are to run.
    """
    policy = next((ARMS[name] for name in config.arms if ARMS[name].method == "policy"), None)
    parts = _Parts(config, model, mesh, policy or Arm("policy"))
    return {name: getattr(parts, name)() for name in _needed(config, policy)}


def _needed(config: ConfigDict, arm: Arm | None) -> list[str]:
    stages, methods = config.stages, {ARMS[name].method for name in config.arms}
    tasks = arm.tasks if arm and "align" in stages else ()
    needed = {
        "pretrain": "pretrain" in stages and config.pretrain.steps,
        "sft": "align" in stages and "imitation" in methods,
        "answers": "understanding" in tasks,
        "answers_reference": "understanding" in tasks and config.understanding.loss.kl != "none",
        "drawings": "generation" in tasks,
        "drawings_reference": "generation" in tasks and needs_reference(config, arm),
        "update": tasks,
        "answer": "evaluate" in stages,
        "draw": "evaluate" in stages,
    }
    return [name for name, wanted in needed.items() if wanted]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """One method for each program."""

    config: ConfigDict
    model: UnifiedConfig
    mesh: Mesh
    arm: Arm

    @functools.cached_property
    def texts(self) -> Texts:
        params = abstract_parameters(self.model, self.mesh)
        return Texts(self.config, self.model.vlm, params, self.mesh)

    @property
    def request(self) -> int:
        """Tokens of a prompt that asks for a drawing."""
        return max(self.config.data.drawing_lengths)

    @property
    def key(self) -> jax.ShapeDtypeStruct:
        return whole(self.mesh, (), jax.random.key(0).dtype)

    @property
    def sharpness(self) -> dict[str, Any]:
        banned = jnp.zeros(self.model.vlm.vocab_size, bool)
        return {"temperature": self.config.understanding.temperature, "banned": banned}

    @property
    def sampler(self) -> FlowSampler:
        return image_sampler(self.config.generation.sampler)

    def pretrain(self) -> Program:
        return self._imitation(self.config.pretrain.weights)

    def sft(self) -> Program:
        return self._imitation(self.config.sft.weights)

    def answers(self) -> Program:
        cfg = self.config.understanding
        program = self.texts.sampled(rollout_size(cfg), cfg.group_size, self.texts.longest, **self.sharpness)
        return program._replace(run=sampling_as_configured(self.config, self.model, program.run))

    def answer(self) -> Program:
        """Evaluation's longest texts are captions."""
        cfg = self.config.evaluate
        return self.texts.sampled(cfg.batch_size, 1, cfg.caption_tokens, temperature=0.0)

    def answers_reference(self) -> Program:
        cfg = self.config.understanding
        program = self.texts.scored(cfg.prompts_per_step, cfg.group_size, **self.sharpness)
        return program._replace(variants=program.variants * answer_layouts(cfg))

    def drawings(self) -> Program:
        cfg = self.config.generation
        program = self._drawing(self.sampler, rollout_size(cfg), cfg.group_size)
        return program._replace(run=sampling_as_configured(self.config, self.model, program.run))

    def draw(self) -> Program:
        cfg = self.config.evaluate
        sampler = drawing_sampler(self.config, steps=cfg.steps, guidance=cfg.guidance)
        return self._drawing(sampler, cfg.batch_size, cfg.samples)

    def drawings_reference(self) -> Program:
        cfg = self.config.generation
        run, batch = policy_velocity(self.config, self.model, self.arm), self._drawn()
        arguments = (self.texts.params, *self._placed((batch.conditions, batch.rollout, batch.seeds)))
        return Program(run, arguments, self._look_flops(cfg.prompts_per_step), variants=self._requests)

    def update(self) -> Program:
        banned = np.zeros(self.model.vlm.vocab_size, bool)
        tasks = policy_tasks(self.config, self.model, self.arm, banned=banned)
        makers: Mapping[str, Callable[[], Any]] = {"understanding": self._answered, "generation": self._drawn}
        batches = {task: makers[task]() for task in tasks}
        guided, passes = self.config.generation.sampler.guidance > 1, passes_of_update(self.config)
        understanding, generation = self.config.understanding, self.config.generation
        flops = {
            "understanding": self.texts.update_flops(
                understanding.prompts_per_step, understanding.group_size, self.texts.longest
            ),
            # Nothing is learned through the prompt that guidance steers away from.
            "generation": (passes + guided) / (1 + guided) * self._look_flops(generation.prompts_per_step),
        }
        program = self._training(tasks, batches, sum(flops[task] for task in tasks))
        layouts = answer_layouts(understanding) if "understanding" in tasks else 1
        return program._replace(variants=program.variants * layouts)

    def _imitation(self, weights: Mapping[str, float]) -> Program:
        weights = {task: weight for task, weight in weights.items() if weight}
        caption, data = self.config.caption, self.config.data
        texts = {
            "captions": (caption.batch_size, caption.captions_per_image, max(data.caption_lengths)),
            "questions": (self.config.question.batch_size, 1, self.texts.longest),
        }
        batches = {task: self._texts(*texts[task]) for task in weights if task in texts}
        passes = passes_of_update(self.config)
        flops = sum(self.texts.update_flops(*texts[task]) for task in batches)
        if "drawings" in weights:
            batches["drawings"] = self._pictures()
            cfg = self.config.drawing
            shape = {"prompts": cfg.batch_size, "prompt_tokens": self.request, "images": 1}
            flops += passes * drawing_flops(self.model, **shape, looks=cfg.repeats)
        tasks = imitation_tasks(self.config, self.model, weights)
        return self._training(tasks, batches, flops)

    def _training(self, tasks: Mapping[str, Task], batches: Mapping[str, Any], flops: float) -> Program:
        optimizer = make_optimizer(learning_rate=1.0, steps=1)
        state = abstract_state(self.config, self.texts.params, optimizer, self.mesh)
        step, arguments = make_joint_step(tasks, optimizer), (state, self._placed(batches))
        return Program(step, arguments, flops, donated=(0,), variants=self.texts.buckets * self._requests)

    def _drawing(self, sampler: FlowSampler, prompts: int, group: int) -> Program:
        rollout = make_image_rollout(
            self.model, sampler, group_size=group, same_noise=self.config.generation.same_noise
        )
        guided = sampler.guidance.text > 1
        arguments = (self.texts.params, self._placed(self._conditions(prompts, guided)), self.key)
        shape = {"prompts": prompts, "prompt_tokens": self.request, "images": group, "looks": sampler.steps}
        flops = (1 + guided) * drawing_flops(self.model, **shape)
        return Program(rollout, arguments, flops, variants=self._requests)

    @property
    def _requests(self) -> int:
        return len(self.config.data.drawing_lengths)

    def _answered(self) -> PolicyBatch:
        cfg = self.config.understanding
        b, g, r = cfg.prompts_per_step, cfg.group_size, self.texts.longest
        reference = None if cfg.loss.kl == "none" else array(b, g, r)
        learned = (array(b, g, r), array(b, g), array(b, g, dtype=bool), reference)
        return PolicyBatch(*self.texts.inputs(b), branch_shapes(b, g, r), *learned)

    def _drawn(self) -> DrawnBatch:
        cfg, sampler = self.config.generation, self.sampler
        b, g = cfg.prompts_per_step, cfg.group_size
        conditions, seeds = self._conditions(b, sampler.guidance.text > 1), array(b, dtype=jnp.int32)
        rollout = jax.eval_shape(
            make_image_rollout(self.model, sampler, group_size=g), self.texts.params, conditions, self.key
        )
        velocity = jax.eval_shape(
            policy_velocity(self.config, self.model, self.arm), self.texts.params, conditions, rollout, seeds
        )
        remembered = (
            algorithm_of(self.config, self.arm) == "nft" and self.config.align.updates_per_rollout > 1
        )
        return DrawnBatch(
            conditions,
            rollout,
            array(b, g),
            array(b, g),
            array(b, g, dtype=bool),
            seeds,
            velocity if remembered else None,
            velocity if needs_reference(self.config, self.arm) else None,
        )

    def _texts(self, prompts: int, group: int, length: int) -> SupervisedBatch:
        shapes = (branch_shapes(prompts, group, length), array(prompts, dtype=bool))
        return SupervisedBatch(*self.texts.inputs(prompts), *shapes)

    def _pictures(self) -> DrawingBatch:
        size, latent = self.config.drawing.batch_size, self.model.latent
        clean = array(size, 1, latent.num_tokens, latent.features)
        seeds = array(size, dtype=jnp.int32)
        return DrawingBatch(prompt_shapes(size, self.request), clean, array(size, 1), seeds)

    def _conditions(self, prompts: int, guided: bool) -> Conditions:
        tokens = prompt_shapes(prompts, self.request)
        return Conditions(tokens, textless=tokens if guided else None)

    def _placed(self, batch):
        return split_batch(self.mesh, batch)

    def _look_flops(self, prompts: int) -> float:
        """Of a forward pass over what drawings are learned from, both contexts of guidance included."""
        cfg, algorithm = self.config.generation, algorithm_of(self.config, self.arm)
        looks = self.sampler.noisy_steps[1] if algorithm == "grpo" else cfg.losses[algorithm].get("looks", 1)
        images = 2 if algorithm == "dpo" else cfg.group_size
        shape = {"prompts": prompts, "prompt_tokens": self.request, "images": images, "looks": looks}
        return (1 + (cfg.sampler.guidance > 1)) * drawing_flops(self.model, **shape)
