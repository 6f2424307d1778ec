"""What is trained: a vision tower, a decoder that computes a prompt once and the branches behind it, text or latents of
images, and an autoencoder for those.

Parameters are plain nested dicts everywhere outside this room; only this room knows Flax.
"""

from mmrpt_jax.models.autoencoder import Autoencoder as Autoencoder
from mmrpt_jax.models.autoencoder import PatchAutoencoder as PatchAutoencoder
from mmrpt_jax.models.autoencoder import decode_tokens as decode_tokens
from mmrpt_jax.models.autoencoder import encode_tokens as encode_tokens
from mmrpt_jax.models.autoencoder import to_pixels as to_pixels
from mmrpt_jax.models.autoencoder import to_uint8 as to_uint8
from mmrpt_jax.models.config import ConnectorConfig as ConnectorConfig
from mmrpt_jax.models.config import RotaryConfig as RotaryConfig
from mmrpt_jax.models.config import TransformerConfig as TransformerConfig
from mmrpt_jax.models.config import VisionConfig as VisionConfig
from mmrpt_jax.models.config import VLMConfig as VLMConfig
from mmrpt_jax.models.head import TokenScores as TokenScores
from mmrpt_jax.models.head import score_tokens as score_tokens
from mmrpt_jax.models.initialise import abstract_parameters as abstract_parameters
from mmrpt_jax.models.initialise import count_parameters as count_parameters
from mmrpt_jax.models.initialise import initialise as initialise
from mmrpt_jax.models.kl_autoencoder import KLAutoencoder as KLAutoencoder
from mmrpt_jax.models.kl_autoencoder import reconstruction_loss as reconstruction_loss
from mmrpt_jax.models.patches import ImagePatches as ImagePatches
from mmrpt_jax.models.places import PromptTokens as PromptTokens
from mmrpt_jax.models.unified import ThoughtState as ThoughtState
from mmrpt_jax.models.unified import copy_experts as copy_experts
from mmrpt_jax.models.unified import encode_prompt as encode_prompt
from mmrpt_jax.models.unified import encode_thoughts as encode_thoughts
from mmrpt_jax.models.unified import velocity as velocity
from mmrpt_jax.models.unified_config import AutoencoderConfig as AutoencoderConfig
from mmrpt_jax.models.unified_config import LatentConfig as LatentConfig
from mmrpt_jax.models.unified_config import UnifiedConfig as UnifiedConfig
from mmrpt_jax.models.vlm import VLM as VLM
from mmrpt_jax.models.vlm import BranchTokens as BranchTokens
from mmrpt_jax.models.vlm import PromptState as PromptState
