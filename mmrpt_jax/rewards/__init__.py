"""How good is an answer, how good an image? Rewards for completions and generated images, and their composition.

A reward is a plain callable with the signature of TRL's GRPOTrainer rewards (`RewardFn`): prompts and
`<think>…</think><answer>…</answer>` completions as strings, dataset columns by keyword, one float or None per
completion. `score` adds several up behind a format gate; `semantic_visual` is the default mix. Next to each reward
stands the function of one answer and one truth that it applies.

Rewards of images read images and their prompts' clauses from columns. A `TaggedReward` declares what it leans on,
rules, the policy itself or another model, and which tasks it applies to; `by_task` makes it score those alone.

Rewards run on the host; only `visual_gain`, `prompt_likelihood` and `yes_probability` are functions of arrays for
devices.
"""

from mmrpt_jax.rewards.base import RewardError as RewardError
from mmrpt_jax.rewards.base import RewardFn as RewardFn
from mmrpt_jax.rewards.compose import RewardTable as RewardTable
from mmrpt_jax.rewards.compose import score as score
from mmrpt_jax.rewards.deadline import in_time as in_time
from mmrpt_jax.rewards.exact import exact_match as exact_match
from mmrpt_jax.rewards.exact import exact_match_score as exact_match_score
from mmrpt_jax.rewards.format import format_reward as format_reward
from mmrpt_jax.rewards.format import is_well_formed as is_well_formed
from mmrpt_jax.rewards.grounded import grounded_match as grounded_match
from mmrpt_jax.rewards.grounding import DenseEncoder as DenseEncoder
from mmrpt_jax.rewards.grounding import assign as assign
from mmrpt_jax.rewards.grounding import grounding as grounding
from mmrpt_jax.rewards.grounding import make_dense_grounding as make_dense_grounding
from mmrpt_jax.rewards.instruction import image_validity as image_validity
from mmrpt_jax.rewards.instruction import instruction_soft as instruction_soft
from mmrpt_jax.rewards.instruction import instruction_strict as instruction_strict
from mmrpt_jax.rewards.kinds import KINDS as KINDS
from mmrpt_jax.rewards.kinds import TASKS as TASKS
from mmrpt_jax.rewards.kinds import TaggedReward as TaggedReward
from mmrpt_jax.rewards.kinds import by_task as by_task
from mmrpt_jax.rewards.knowledge import knowledge_consistency as knowledge_consistency
from mmrpt_jax.rewards.knowledge import knowledge_score as knowledge_score
from mmrpt_jax.rewards.knowledge import questions_of_clauses as questions_of_clauses
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
from mmrpt_jax.rewards.presets import IMAGE_REWARDS as IMAGE_REWARDS
from mmrpt_jax.rewards.presets import READ_GAIN as READ_GAIN
from mmrpt_jax.rewards.presets import REWARDS as REWARDS
from mmrpt_jax.rewards.presets import exact_prefix as exact_prefix
from mmrpt_jax.rewards.presets import semantic_visual as semantic_visual
from mmrpt_jax.rewards.presets import weighted as weighted
from mmrpt_jax.rewards.repetition import make_repetition_penalty as make_repetition_penalty
from mmrpt_jax.rewards.repetition import repeated_ngram_share as repeated_ngram_share
from mmrpt_jax.rewards.semantic import make_semantic_reward as make_semantic_reward
from mmrpt_jax.rewards.semantic_image import ImageTextEncoder as ImageTextEncoder
from mmrpt_jax.rewards.semantic_image import image_text_cosine as image_text_cosine
from mmrpt_jax.rewards.semantic_image import make_image_text_cosine as make_image_text_cosine
from mmrpt_jax.rewards.semantic_image import prompt_likelihood as prompt_likelihood
from mmrpt_jax.rewards.semantic_image import yes_probability as yes_probability
from mmrpt_jax.rewards.token_f1 import token_f1 as token_f1
from mmrpt_jax.rewards.token_f1 import token_f1_score as token_f1_score
from mmrpt_jax.rewards.visual_gain import visual_gain as visual_gain
from mmrpt_jax.rewards.visual_gain import visual_gain_reward as visual_gain_reward
