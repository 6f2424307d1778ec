"""Groups of answers and groups of images, sampled behind one computed prompt."""

from mmrpt_jax.sampling.field import Conditions as Conditions
from mmrpt_jax.sampling.field import make_field as make_field
from mmrpt_jax.sampling.flow import FlowSampler as FlowSampler
from mmrpt_jax.sampling.flow import FlowScores as FlowScores
from mmrpt_jax.sampling.flow import ImageRollout as ImageRollout
from mmrpt_jax.sampling.flow import make_image_rollout as make_image_rollout
from mmrpt_jax.sampling.flow import make_image_scorer as make_image_scorer
from mmrpt_jax.sampling.guidance import Guidance as Guidance
from mmrpt_jax.sampling.rollout import Rollout as Rollout
from mmrpt_jax.sampling.rollout import make_rollout as make_rollout
