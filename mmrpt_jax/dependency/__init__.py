"""Which words of a caption need the image?

Scores per token, either from where the model looks (attention mass on the image, with corrections for
position and for attention sinks) or from what changes when the image is taken away (log-likelihood ratio,
KL); pooling over words and sentences; adaptive thresholds; agreement between scorings. Pure functions of
arrays and strings.
"""

from mmrpt_jax.dependency.agreement import auc as auc
from mmrpt_jax.dependency.agreement import spearman as spearman
from mmrpt_jax.dependency.attention_mass import lift as lift
from mmrpt_jax.dependency.attention_mass import received_mass as received_mass
from mmrpt_jax.dependency.attention_mass import region_mass as region_mass
from mmrpt_jax.dependency.attention_mass import visual_dependency as visual_dependency
from mmrpt_jax.dependency.likelihood import kl_divergence as kl_divergence
from mmrpt_jax.dependency.likelihood import log_likelihood_ratio as log_likelihood_ratio
from mmrpt_jax.dependency.likelihood import sampled_kl as sampled_kl
from mmrpt_jax.dependency.sinks import detect_sinks as detect_sinks
from mmrpt_jax.dependency.sinks import remove_sinks as remove_sinks
from mmrpt_jax.dependency.sinks import sink_regions as sink_regions
from mmrpt_jax.dependency.spans import segment_pool as segment_pool
from mmrpt_jax.dependency.spans import sentence_spans as sentence_spans
from mmrpt_jax.dependency.spans import tokens_to_segments as tokens_to_segments
from mmrpt_jax.dependency.spans import word_spans as word_spans
from mmrpt_jax.dependency.thresholds import threshold as threshold
