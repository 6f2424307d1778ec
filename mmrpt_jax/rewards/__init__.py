"""How good is an answer? Rewards for `<think>…</think><answer>…</answer>` completions, and their composition.

A reward is a plain callable with the signature of TRL's GRPOTrainer rewards (`RewardFn`): prompts and
completions as strings, dataset columns by keyword, one float or None per completion. `score` adds several up
behind a format gate; `semantic_visual` is the default mix. Rewards run on the host; only `visual_gain` is a
function of arrays for devices. Next to each reward stands the function of one answer and one truth that it
applies.
"""

from mmrpt_jax.rewards.base import RewardError as RewardError
from mmrpt_jax.rewards.base import RewardFn as RewardFn
from mmrpt_jax.rewards.compose import RewardTable as RewardTable
from mmrpt_jax.rewards.compose import score as score
from mmrpt_jax.rewards.exact import exact_match as exact_match
from mmrpt_jax.rewards.exact import exact_match_score as exact_match_score
from mmrpt_jax.rewards.format import format_reward as format_reward
from mmrpt_jax.rewards.format import is_well_formed as is_well_formed
from mmrpt_jax.rewards.grounded import grounded_match as grounded_match
from mmrpt_jax.rewards.length import length_score as length_score
from mmrpt_jax.rewards.length import make_length_penalty as make_length_penalty
from mmrpt_jax.rewards.length import make_soft_overlong as make_soft_overlong
from mmrpt_jax.rewards.length import soft_overlong_score as soft_overlong_score
from mmrpt_jax.rewards.normalise import STOP_WORDS as STOP_WORDS
from mmrpt_jax.rewards.normalise import normalise as normalise
from mmrpt_jax.rewards.normalise import words as words
from mmrpt_jax.rewards.parse import Parsed as Parsed
from mmrpt_jax.rewards.parse import parse_completion as parse_completion
from mmrpt_jax.rewards.parse import score_answers as score_answers
from mmrpt_jax.rewards.prefix import strict_prefix as strict_prefix
from mmrpt_jax.rewards.prefix import strict_prefix_score as strict_prefix_score
from mmrpt_jax.rewards.presets import REWARDS as REWARDS
from mmrpt_jax.rewards.presets import exact_prefix as exact_prefix
from mmrpt_jax.rewards.presets import semantic_visual as semantic_visual
from mmrpt_jax.rewards.presets import weighted as weighted
from mmrpt_jax.rewards.repetition import make_repetition_penalty as make_repetition_penalty
from mmrpt_jax.rewards.repetition import repeated_ngram_share as repeated_ngram_share
from mmrpt_jax.rewards.semantic import make_semantic_reward as make_semantic_reward
from mmrpt_jax.rewards.token_f1 import token_f1 as token_f1
from mmrpt_jax.rewards.token_f1 import token_f1_score as token_f1_score
from mmrpt_jax.rewards.visual_gain import visual_gain as visual_gain
from mmrpt_jax.rewards.visual_gain import visual_gain_reward as visual_gain_reward
