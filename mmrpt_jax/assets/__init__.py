"""Files that come with the package; the README beside each says how they were made."""

from pathlib import Path

_HERE = Path(__file__).parent

SCENES_WEIGHTS = _HERE / "scenes_base" / "weights.safetensors"
SCENES_TOKENIZER = _HERE / "scenes_base" / "tokenizer.json"
UNIFIED_AUTOENCODER = _HERE / "scenes_unified" / "autoencoder.safetensors"
UNIFIED_WEIGHTS = _HERE / "scenes_unified" / "weights.safetensors"
