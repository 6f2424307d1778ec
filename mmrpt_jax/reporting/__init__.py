"""What a run leaves for people: pictures of dependency and drawings, samples of training, tables of results.

Everything here turns finished numbers into files or images; nothing here trains or measures.
"""

from mmrpt_jax.reporting.completions import CompletionsWriter as CompletionsWriter
from mmrpt_jax.reporting.contact_sheet import contact_sheet as contact_sheet
from mmrpt_jax.reporting.drawings import DrawingsWriter as DrawingsWriter
from mmrpt_jax.reporting.gallery import GalleryRow as GalleryRow
from mmrpt_jax.reporting.gallery import gallery as gallery
from mmrpt_jax.reporting.jsonl import JsonLines as JsonLines
from mmrpt_jax.reporting.jsonl import read_jsonl as read_jsonl
from mmrpt_jax.reporting.overlay import dependency_overlay as dependency_overlay
from mmrpt_jax.reporting.table import format_table as format_table
from mmrpt_jax.reporting.table import write_table as write_table
