"""Files that come with the package; `scenes_base/README.md` says how they were made."""

from pathlib import Path

_SCENES_BASE = Path(__file__).parent / "scenes_base"

SCENES_WEIGHTS = _SCENES_BASE / "weights.safetensors"
SCENES_TOKENIZER = _SCENES_BASE / "tokenizer.json"
