"""What examines every arm alike: compiled once, for any parameters of the run's model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mmrpt_jax.evaluation.drawer import Drawer
from mmrpt_jax.evaluation.evaluator import Evaluator
from mmrpt_jax.models.unified import encode_prompt
from mmrpt_jax.sampling import FlowSampler, Guidance
from mmrpt_jax.stages.lvrpo.examples import drawing_tokens
from mmrpt_jax.stages.lvrpo.pretrain import imitation_tasks
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.accumulate import LossFn


class Examiner(NamedTuple):
    """Draws, answers and describes, and looks inside.

    Attributes:
        drawer: draws without noise on the way, as `config.evaluate` says.
        answerer: answers questions.
        captioner: describes images, with room for a whole caption.
        states: (params, images, prompts) -> [B D], what is known where the answer begins.
        gradients: (params, batch) -> gradients of imitation, by task.
    """

    drawer: Drawer
    answerer: Evaluator
    captioner: Evaluator
    states: Callable[..., jax.Array]
    gradients: Mapping[str, Callable[[Any, Any], Any]]


def open_examiner(run: Run) -> Examiner:
    """The examiner of a run."""
    cfg = run.config.evaluate
    tasks = imitation_tasks(run.config, run.model, {"questions": 1.0, "drawings": 1.0})
    return Examiner(
        make_drawer(run, samples=cfg.samples, steps=cfg.steps, guidance=cfg.guidance),
        run.evaluator(batch_size=cfg.batch_size),
        run.evaluator(batch_size=cfg.batch_size, max_tokens=cfg.caption_tokens),
        jax.jit(lambda *inputs: encode_prompt(run.model, *inputs).last_hidden),
        {name: _gradient(task.loss) for name, task in tasks.items()},
    )


def _gradient(loss: LossFn) -> Callable[[Any, Any], Any]:
    return jax.jit(jax.grad(lambda params, batch: loss(params, batch)[0]))


def make_drawer(run: Run, *, samples: int, steps: int, guidance: float) -> Drawer:
    """A drawer of `samples` images per prompt, in `steps` steps of the ODE."""
    return Drawer(
        model=run.model,
        sampler=drawing_sampler(run.config, steps=steps, guidance=guidance),
        coder=run.coder,
        encode=lambda texts: drawing_tokens(run, texts),
        group_size=samples,
        batch_size=run.config.evaluate.batch_size,
        batches=run.whole,
    )


def drawing_sampler(config: ConfigDict, *, steps: int, guidance: float) -> FlowSampler:
    """The policy's sampler without its noise, in other steps and with other guidance."""
    sampler = config.generation.sampler
    guide = Guidance(text=guidance, interval=tuple(sampler.guidance_interval), renorm=sampler.renorm)
    return FlowSampler(steps=steps, shift=sampler.shift, kind="ode", guidance=guide)
