"""Cut the words that need the image out of a caption, and ask for them back.

Spans chosen by dependency scores (sentence first, then phrases of content words) or by the random and
content-word baselines; masked text and answers; filters for items that leak or cannot be learned from; patch
masks.
"""

from mmrpt_jax.masking.leak import keep_learnable as keep_learnable
from mmrpt_jax.masking.leak import keep_unsolved as keep_unsolved
from mmrpt_jax.masking.patches import GREY as GREY
from mmrpt_jax.masking.patches import hide_patches as hide_patches
from mmrpt_jax.masking.patches import random_patch_mask as random_patch_mask
from mmrpt_jax.masking.patches import top_patch_mask as top_patch_mask
from mmrpt_jax.masking.stopwords import STOP_WORDS as STOP_WORDS
from mmrpt_jax.masking.stopwords import is_content_word as is_content_word
from mmrpt_jax.masking.stopwords import is_word as is_word
from mmrpt_jax.masking.text import MaskedCaption as MaskedCaption
from mmrpt_jax.masking.text import apply_mask as apply_mask
from mmrpt_jax.masking.text import choose_spans as choose_spans
from mmrpt_jax.masking.text import content_word_spans as content_word_spans
from mmrpt_jax.masking.text import random_spans as random_spans
from mmrpt_jax.masking.text import restore as restore
