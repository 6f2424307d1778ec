"""Reinforcement pre-training of multimodal models in JAX.

The package is built in three rings, and imports point inward only:

1. `dependency`, `masking`, `rewards`, `objectives`, `scenes`: pure functions. Arrays or strings in, arrays
   out; no model, no config object, no mesh. Import one of them for an ablation and leave the rest.
2. `models`, `sampling`, `data`: what is trained, how groups of answers are drawn, how records become batches.
3. `training`, `evaluation`, `reporting`: the methods put together.

Importing `mmrpt_jax` imports nothing else; each room is imported by name.
"""

__version__ = "0.1.0"
