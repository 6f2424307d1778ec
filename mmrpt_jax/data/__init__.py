"""From records on disk to batches.

One record format, sidecars joined by id, images, the tokenizer, prompts, Grain pipelines.
"""

import os

from mmrpt_jax.data.escape import escape_placeholders as escape_placeholders
from mmrpt_jax.data.images import ImageError as ImageError
from mmrpt_jax.data.images import decode_image as decode_image
from mmrpt_jax.data.images import resize_image as resize_image
from mmrpt_jax.data.pipeline import make_dataset as make_dataset
from mmrpt_jax.data.pipeline import make_iterator as make_iterator
from mmrpt_jax.data.records import Record as Record
from mmrpt_jax.data.records import open_records as open_records
from mmrpt_jax.data.records import write_records as write_records
from mmrpt_jax.data.sidecar import join as join
from mmrpt_jax.data.sidecar import open_sidecar as open_sidecar
from mmrpt_jax.data.sidecar import write_sidecar as write_sidecar
from mmrpt_jax.data.tfds_view import open_tfds as open_tfds
from mmrpt_jax.data.tokenizer import Tokenizer as Tokenizer
from mmrpt_jax.data.tokenizer import load_tokenizer as load_tokenizer
from mmrpt_jax.data.tokenizer import train_tokenizer as train_tokenizer

# Of `transformers` only tokenizers and configs are used; that it finds no torch is as it should be.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
