"""What vision towers of public checkpoints read: resize rules, tiles, patches, and an image's place in the text."""

from mmrpt_jax.data.preprocessing.image_text import expand_images as expand_images
from mmrpt_jax.data.preprocessing.patches import ImagePatches as ImagePatches
from mmrpt_jax.data.preprocessing.patches import stack_patches as stack_patches
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor as ImagePreprocessor
from mmrpt_jax.data.preprocessing.preprocessor import Layout as Layout
