"""A small byte-level BPE tokenizer, trained on a corpus and saved with the run as `tokenizer.json`."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer as _Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

PAD, EOS, IMAGE, MASK = "<pad>", "<eos>", "<image>", "[MASK]"
THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
SPECIAL_TOKENS = (PAD, EOS, IMAGE, MASK, THINK, END_THINK, ANSWER, END_ANSWER)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Token ids and, for each, its [start, end) character range in the text."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


class Tokenizer:
    """Text to ids and back. Every word carries its leading space, also behind a special token.

    Attributes:
        pad_id: fills rows up.
        eos_id: `EOS`, what a completion is taught to end with.
        image_id: stands once for every visual token.
        stop_ids: every id that ends a completion.
    """

    def __init__(self, backend: _Backend):
        self._backend = backend
        missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
        if missing:
            raise ValueError(f"the tokenizer has no {', '.join(missing)}; train one with `train_tokenizer`")
        self.pad_id, self.eos_id, self.image_id = (backend.token_to_id(token) for token in (PAD, EOS, IMAGE))
        self.stop_ids: tuple[int, ...] = (self.eos_id,)

    @property
    def vocab_size(self) -> int:
        """V, special tokens included."""
        return self._backend.get_vocab_size()

    @property
    def banned(self) -> np.ndarray:
        """bool[V]: ids that a model may read but never write (padding and image placeholders)."""
        banned = np.zeros(self.vocab_size, bool)
        banned[[self.pad_id, self.image_id]] = True
        return banned

    def encode(self, text: str) -> Encoding:
        """Encodes text; special tokens in it become their ids, so user text must be escaped at ingest."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        return Encoding(tuple(encoded.ids), tuple(encoded.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        """Decodes ids, special tokens kept, end tokens and padding dropped, outer spaces stripped."""
        kept = [int(i) for i in ids if i not in (self.pad_id, *self.stop_ids)]
        return self._backend.decode(kept, skip_special_tokens=False).strip()

    def save(self, path: str) -> None:
        """Writes `tokenizer.json`; a file of this name is always whole."""
        self._backend.save(f"{os.fspath(path)}.partial")
        os.replace(f"{os.fspath(path)}.partial", path)


def load_tokenizer(path: str) -> Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        FileNotFoundError: names the missing file.
        ValueError: names the special tokens that it lacks.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no tokenizer at {path}")
    return Tokenizer(_Backend.from_file(os.fspath(path)))


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Trains byte-level BPE: deterministic, and no text is ever unknown, since all 256 bytes are tokens."""
    backend = _Backend(models.BPE())
    # One word, with the space before it, is at most one run of merges; punctuation stands alone.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)
