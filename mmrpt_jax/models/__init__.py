"""What is trained: a vision tower, and a decoder that computes a prompt once and the branches behind it.

Parameters are plain nested dicts everywhere outside this room; only this room knows Flax.
"""

from mmrpt_jax.models.config import TransformerConfig as TransformerConfig
from mmrpt_jax.models.config import VisionConfig as VisionConfig
from mmrpt_jax.models.config import VLMConfig as VLMConfig
from mmrpt_jax.models.head import TokenScores as TokenScores
from mmrpt_jax.models.head import score_tokens as score_tokens
from mmrpt_jax.models.initialise import abstract_parameters as abstract_parameters
from mmrpt_jax.models.initialise import count_parameters as count_parameters
from mmrpt_jax.models.initialise import initialise as initialise
from mmrpt_jax.models.vlm import VLM as VLM
from mmrpt_jax.models.vlm import BranchTokens as BranchTokens
from mmrpt_jax.models.vlm import PromptState as PromptState
from mmrpt_jax.models.vlm import PromptTokens as PromptTokens
