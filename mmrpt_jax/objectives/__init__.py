"""From rewards to a loss: group advantages, clipped surrogates, KL estimators, reductions.

Pure functions of arrays, each usable alone. Leading dimensions `*E` are free, most often `[B, G]`;
hyper-parameters are keyword-only and static. Together they read:

  advantages = group_advantages(rewards)
  total, count, metrics = policy_loss(logprobs, behaviour_logprobs, advantages, mask, variant="dapo")
  loss = divide(total, count)
"""

from mmrpt_jax.objectives.advantages import group_advantages as group_advantages
from mmrpt_jax.objectives.advantages import rloo_advantages as rloo_advantages
from mmrpt_jax.objectives.advantages import segment_advantages as segment_advantages
from mmrpt_jax.objectives.advantages import zero_variance_groups as zero_variance_groups
from mmrpt_jax.objectives.completions import completion_mask as completion_mask
from mmrpt_jax.objectives.completions import truncated_completions as truncated_completions
from mmrpt_jax.objectives.importance import importance_weights as importance_weights
from mmrpt_jax.objectives.importance import sequence_acceptance as sequence_acceptance
from mmrpt_jax.objectives.kl import kl_estimate as kl_estimate
from mmrpt_jax.objectives.kl import kl_penalised_rewards as kl_penalised_rewards
from mmrpt_jax.objectives.losses import VARIANTS as VARIANTS
from mmrpt_jax.objectives.losses import Variant as Variant
from mmrpt_jax.objectives.losses import policy_loss as policy_loss
from mmrpt_jax.objectives.multi_reward import AdvantageFn as AdvantageFn
from mmrpt_jax.objectives.multi_reward import gdpo as gdpo
from mmrpt_jax.objectives.multi_reward import normalise_then_sum as normalise_then_sum
from mmrpt_jax.objectives.multi_reward import sum_then_normalise as sum_then_normalise
from mmrpt_jax.objectives.ratios import log_ratio as log_ratio
from mmrpt_jax.objectives.reductions import divide as divide
from mmrpt_jax.objectives.reductions import reduce_tokens as reduce_tokens
from mmrpt_jax.objectives.surrogate import Surrogate as Surrogate
from mmrpt_jax.objectives.surrogate import SurrogateOutput as SurrogateOutput
from mmrpt_jax.objectives.surrogate import cispo_surrogate as cispo_surrogate
from mmrpt_jax.objectives.surrogate import clipped_surrogate as clipped_surrogate
from mmrpt_jax.objectives.surrogate import gspo_surrogate as gspo_surrogate
