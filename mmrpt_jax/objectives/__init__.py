"""From rewards to a loss: group advantages, clipped surrogates, KL estimators, reductions.

Pure functions of arrays, each usable alone. Leading dimensions `*E` are free, most often `[B, G]`;
hyper-parameters are keyword-only and static. Together they read:

  advantages = group_advantages(rewards)
  total, count, metrics = policy_loss(logprobs, behaviour_logprobs, advantages, mask, variant="dapo")
  loss = divide(total, count)

For images that are sampled by flow matching, with latents `[*E, I, C]` and noisy steps in place of tokens:

  mean, std = flow_transition(latents, velocity, times, next_times, noise_level)
  logprobs = transition_logprobs(next_latents, mean, std)
  total, count, metrics = flow_policy_loss(logprobs, behaviour_logprobs, advantages, mask)
"""

from mmrpt_jax.objectives.advantages import group_advantages as group_advantages
from mmrpt_jax.objectives.advantages import rloo_advantages as rloo_advantages
from mmrpt_jax.objectives.advantages import segment_advantages as segment_advantages
from mmrpt_jax.objectives.advantages import zero_variance_groups as zero_variance_groups
from mmrpt_jax.objectives.completions import completion_mask as completion_mask
from mmrpt_jax.objectives.completions import truncated_completions as truncated_completions
from mmrpt_jax.objectives.flow_kl import FLOW_KL_KINDS as FLOW_KL_KINDS
from mmrpt_jax.objectives.flow_kl import flow_kl as flow_kl
from mmrpt_jax.objectives.flow_kl import transition_kl as transition_kl
from mmrpt_jax.objectives.flow_loss import flow_policy_loss as flow_policy_loss
from mmrpt_jax.objectives.flow_preference import PreferencePairs as PreferencePairs
from mmrpt_jax.objectives.flow_preference import best_of_group_weights as best_of_group_weights
from mmrpt_jax.objectives.flow_preference import flow_dpo_loss as flow_dpo_loss
from mmrpt_jax.objectives.flow_preference import flow_matching_errors as flow_matching_errors
from mmrpt_jax.objectives.flow_preference import flow_matching_loss as flow_matching_loss
from mmrpt_jax.objectives.flow_preference import preference_pairs as preference_pairs
from mmrpt_jax.objectives.flow_preference import reward_weights as reward_weights
from mmrpt_jax.objectives.flow_schedule import constant_level as constant_level
from mmrpt_jax.objectives.flow_schedule import flow_sde_level as flow_sde_level
from mmrpt_jax.objectives.flow_schedule import interpolate as interpolate
from mmrpt_jax.objectives.flow_schedule import logit_normal_times as logit_normal_times
from mmrpt_jax.objectives.flow_schedule import predict_clean as predict_clean
from mmrpt_jax.objectives.flow_schedule import predict_noise as predict_noise
from mmrpt_jax.objectives.flow_schedule import shift_times as shift_times
from mmrpt_jax.objectives.flow_schedule import timesteps as timesteps
from mmrpt_jax.objectives.flow_schedule import velocity_target as velocity_target
from mmrpt_jax.objectives.flow_transition import Transition as Transition
from mmrpt_jax.objectives.flow_transition import flow_transition as flow_transition
from mmrpt_jax.objectives.flow_transition import sample_transition as sample_transition
from mmrpt_jax.objectives.flow_transition import transition_logprobs as transition_logprobs
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
from mmrpt_jax.objectives.nft import nft_loss as nft_loss
from mmrpt_jax.objectives.ratios import log_ratio as log_ratio
from mmrpt_jax.objectives.reductions import divide as divide
from mmrpt_jax.objectives.reductions import reduce_tokens as reduce_tokens
from mmrpt_jax.objectives.surrogate import Surrogate as Surrogate
from mmrpt_jax.objectives.surrogate import SurrogateOutput as SurrogateOutput
from mmrpt_jax.objectives.surrogate import cispo_surrogate as cispo_surrogate
from mmrpt_jax.objectives.surrogate import clipped_surrogate as clipped_surrogate
from mmrpt_jax.objectives.surrogate import gspo_surrogate as gspo_surrogate
