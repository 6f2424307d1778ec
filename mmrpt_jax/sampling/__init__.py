"""Groups of answers, sampled behind one computed prompt."""

from mmrpt_jax.sampling.rollout import Rollout as Rollout
from mmrpt_jax.sampling.rollout import make_rollout as make_rollout
