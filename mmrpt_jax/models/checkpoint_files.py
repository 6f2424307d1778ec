"""A checkpoint's directory as the Hugging Face hub lays it out: safetensors, whole or in shards with an index."""

import hashlib
from pathlib import Path

from mmrpt_jax.models.json_file import read_json_object
from mmrpt_jax.models.safetensors_file import StoredTensor, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Bytes.
_GLANCE = 2**20
_PICKLES = (".bin", ".pt", ".pth")


def open_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """Tensors by name, of a directory or of one safetensors file; reads headers only.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: only pickles there, or files that contradict themselves.
    """
    if path.is_file():
        return read_header(path)
    if (path / WEIGHTS).is_file():
        return read_header(path / WEIGHTS)
    if (path / INDEX).is_file():
        return _open_shards(path / INDEX)
    pickles = sorted(file.name for file in path.glob("*") if file.suffix in _PICKLES)
    if pickles:
        raise ValueError(
            f"{path} holds weights only as pickles ({', '.join(pickles)}), which run code when they are read: "
            "convert them to safetensors"
        )
    raise FileNotFoundError(f"no weights at {path}: neither {WEIGHTS} nor {INDEX}")


def fingerprint(folder: Path) -> str:
    """Tells a checkpoint from another of the same names and shapes, without reading all of it.

    Of `config.json`, and of size, beginning and end of every file of weights, each of a mebibyte.
    """
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*config.json"), *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        found.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            found.update(file.read(_GLANCE))
            file.seek(max(0, size - _GLANCE))
            found.update(file.read(_GLANCE))
    return found.hexdigest()


def _open_shards(index: Path) -> dict[str, StoredTensor]:
    match read_json_object(index):
        case {"weight_map": dict(places)} if all(isinstance(file, str) for file in places.values()):
            pass
        case _:
            raise ValueError(f"{index} has no weight_map from tensors to files")
    # Names from the listing never lead out of the directory.
    siblings = {file.name: file for file in index.parent.iterdir() if file.is_file()}
    missing = sorted(set(places.values()) - siblings.keys())
    if missing:
        raise ValueError(
            f"{index} names files that are not in its directory: {', '.join(map(repr, missing))}"
        )
    headers = {file: read_header(siblings[file]) for file in sorted(set(places.values()))}
    lost = [f"{name!r} in {file}" for name, file in places.items() if name not in headers[file]]
    if lost:
        raise ValueError(f"{index} looks for tensors where they are not: {', '.join(lost)}")
    # The index decides where a name stands twice; what it does not name is still there.
    everything = {name: tensor for header in headers.values() for name, tensor in header.items()}
    return everything | {name: headers[file][name] for name, file in places.items()}
