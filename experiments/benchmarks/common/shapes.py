"""The shape of a step at published size, and the presets of published models brought to it."""

import dataclasses

from ml_collections import ConfigDict

from experiments.configs import lvrpo_bagel, mmrpt_qwen2_5_vl


@dataclasses.dataclass(frozen=True)
class Shape:
    """B groups of G answers of R tokens behind P tokens, among them those of an image of so many patches."""

    prompts: int
    group: int
    prompt_tokens: int
    branch_tokens: int
    patches: int

    def copied(self) -> "Shape":
        """The same answers, each behind a prompt of its own."""
        return dataclasses.replace(self, prompts=self.prompts * self.group, group=1)


def shaped_preset(shape: Shape, *, unified: bool = False) -> ConfigDict:
    """The preset of Qwen2.5-VL, or of the unified model BAGEL, with steps of this shape in one batch."""
    config = (lvrpo_bagel if unified else mmrpt_qwen2_5_vl).get_config()
    config.data.update(
        prompt_lengths=(shape.prompt_tokens,),
        branch_lengths=(shape.branch_tokens,),
        patch_counts=(shape.patches,),
    )
    for section in ("understanding", "generation") if unified else ("rl",):
        config[section].update(
            prompts_per_step=shape.prompts, group_size=shape.group, oversample=1, micro_batches=1
        )
    return config
