"""Which families there are, by the `model_type` of their `config.json`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.families import gemma3, idefics3, qwen2_5_vl, qwen3_vl
from mmrpt_jax.models.weight_table import Weight, respelled

# Tensors that some files hold and no model needs: what is computed, and an output matrix that is the embedding.
_COMPUTED = ("*.rotary_emb.inv_freq", "*.position_ids", "lm_head.weight", "language_model.lm_head.weight")


class Family(NamedTuple):
    """How checkpoints of one `model_type` are read and written.

    Attributes:
        model_config: our config from a parsed `config.json`.
        weight_table: the weights of that config and their names.
        ignored: patterns of names that may be in a checkpoint and are not used.
        modules: beginnings of the table's names, and what a model loaded by `transformers` has for each; checkpoints
            that were written without its `save_pretrained` have them, too.
        written: beginnings that names have in checkpoints written by it, and what the table says for each.
    """

    model_config: Callable[[Mapping[str, Any]], VLMConfig]
    weight_table: Callable[[VLMConfig], list[Weight]]
    ignored: tuple[str, ...] = _COMPUTED
    modules: Mapping[str, str] = MappingProxyType({})
    written: Mapping[str, str] = MappingProxyType({})

    @property
    def spellings(self) -> dict[str, str]:
        """Every other beginning that names may have in a checkpoint, and what the table says for each."""
        return {theirs: ours for ours, theirs in self.modules.items()} | self.written

    def module_table(self, model: VLMConfig) -> list[Weight]:
        """The weights under their names in a model loaded by `transformers`, which adapters go by."""
        return [
            weight._replace(theirs=respelled(weight.theirs, self.modules))
            for weight in self.weight_table(model)
        ]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gemma3": Family(
            gemma3.model_config, gemma3.weight_table, modules=gemma3.MODULES, written=gemma3.WRITTEN
        ),
        "idefics3": Family(idefics3.model_config, idefics3.weight_table),
        "qwen2_5_vl": Family(qwen2_5_vl.model_config, qwen2_5_vl.weight_table, modules=qwen2_5_vl.MODULES),
        "qwen3_vl": Family(qwen3_vl.model_config, qwen3_vl.weight_table),
        "smolvlm": Family(idefics3.model_config, idefics3.weight_table),
    }
)


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a parsed `config.json`.

    Raises:
        ValueError: names the families that are known.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"config.json has model_type {kind!r}, which is no family that is known here: "
            f"take a checkpoint of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]
