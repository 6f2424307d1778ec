"""Programs about answers, which both methods compile: groups sampled behind their prompts, and scored."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.stages.topology.program import Program, passes_of_update, split_batch, whole
from mmrpt_jax.stages.topology.shapes import branch_shapes, image_buckets, image_shapes, prompt_shapes
from mmrpt_jax.training.compute import forward_flops


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is sampled and scored of texts, with prompts at their longest.

    Attributes:
        config: of the experiment.
        model: what understands.
        params: abstract; of the whole model.
        mesh: where they live.
    """

    config: ConfigDict
    model: VLMConfig
    params: Any
    mesh: Mesh

    @property
    def longest(self) -> int:
        """Tokens of the longest answers."""
        return max(self.config.data.branch_lengths)

    @property
    def buckets(self) -> int:
        """Shapes that prompts with their images have."""
        return image_buckets(self.config)

    def inputs(self, prompts: int) -> tuple[Any, Any]:
        """Images and prompts."""
        images = image_shapes(self.config, self.model, prompts)
        return split_batch(self.mesh, (images, prompt_shapes(prompts, max(self.config.data.prompt_lengths))))

    def sampled(self, prompts: int, group: int, tokens: int, **options: Any) -> Program:
        """Up to `tokens` of each answer; `options` of `make_rollout`."""
        rollout = make_rollout(self.model, group_size=group, max_tokens=tokens, end_ids=(0,), **options)
        arguments = (self.params, *self.inputs(prompts), whole(self.mesh, (), jax.random.key(0).dtype))
        flops = self.forward_flops(prompts, group, tokens)
        return Program(rollout, arguments, flops, trips=tokens, variants=self.buckets)

    def scored(self, prompts: int, group: int, **options: Any) -> Program:
        """The log-probability of every token of given answers; `options` of `forward`."""

        def logprobs(params: Any, *inputs: Any) -> Any:
            return forward(self.model, params, *inputs, **options).logprobs

        branches = split_batch(self.mesh, branch_shapes(prompts, group, self.longest))
        arguments = (self.params, *self.inputs(prompts), branches)
        flops = self.forward_flops(prompts, group, self.longest)
        return Program(logprobs, arguments, flops, variants=self.buckets)

    def forward_flops(self, prompts: int, group: int, tokens: int) -> float:
        """Of one pass, by formula."""
        data, counts = self.config.data, self.config.data.patch_counts
        return forward_flops(
            self.model,
            prompts=prompts,
            prompt_tokens=max(data.prompt_lengths),
            group=group,
            branch_tokens=tokens,
            patches=max(counts) if counts else None,
        )

    def update_flops(self, prompts: int, group: int, tokens: int) -> float:
        """Of one update, by formula."""
        return passes_of_update(self.config) * self.forward_flops(prompts, group, tokens)
