"""Where a checkpoint is: in a local directory, or on the Hugging Face hub if that is said in so many words."""

from pathlib import Path

from huggingface_hub import snapshot_download

HUB = "hub:"
_DOWNLOADED = ["*.safetensors", "*.json", "*.txt", "*.jinja"]


def resolve_checkpoint(name: str) -> Path:
    """The directory that is meant: a local one, or for "hub:owner/name" that of a download from the hub.

    Nothing else touches the network, and a download takes safetensors and text, no code and no pickles.

    Raises:
        FileNotFoundError: there is no such directory.
        ValueError: what follows "hub:" is not an owner and a name.
    """
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        if repository.count("/") != 1:
            raise ValueError(f"{name!r} names no repository: write hub:owner/name")
        # Folders hold the same model in other formats.
        return Path(snapshot_download(repository, allow_patterns=_DOWNLOADED, ignore_patterns=["*/*"]))
    if not Path(name).is_dir():
        raise FileNotFoundError(
            f"no directory {name}: give a local checkpoint, or hub:owner/name to download one from the hub"
        )
    return Path(name)
