"""The tokenizer and chat template of a public checkpoint, behind the interface of our own tokenizer."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from mmrpt_jax.data.tokenizer import EOS, IMAGE, PAD, Encoding, Tokenizer
from mmrpt_jax.models.json_file import read_json_object

# Special tokens that announce, frame or stand for pictures: read, never written.
_VISUAL = re.compile(r"image|img|vision|video|row_\d+_col_\d+")
# What an answer is taken to be where only the tokens behind it matter.
_ANSWER = "Yes."


class CheckpointTokenizer(Tokenizer):
    """Text to ids and back with a checkpoint's vocabulary.

    The markup of our prompts means the same as with our own tokenizer: `IMAGE` is the checkpoint's image token,
    `EOS` the end of an assistant's turn, `PAD` its padding. `MASK` and the tags of a completion are ordinary text.

    Attributes:
        pad_id: fills rows up; may be one of the ids that end a completion.
        eos_id: the stop id that the chat template writes behind an answer.
        image_id: stands once for every visual token.
        stop_ids: every id that ends a completion.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerFast,
        *,
        image_token: str,
        vocab_size: int,
        stop_ids: Sequence[int],
    ):
        """Wraps a loaded tokenizer; `load_checkpoint_tokenizer` finds the arguments in a checkpoint's directory.

        Raises:
            ValueError: the tokenizer has no such image token, or more tokens than the model.
        """
        self._tokenizer, self._backend, self._vocab_size = tokenizer, tokenizer.backend_tokenizer, vocab_size
        # A saved tokenizer may cut or fill up; lengths are our own business.
        self._backend.no_truncation()
        self._backend.no_padding()
        if self._backend.token_to_id(image_token) is None:
            raise ValueError(f"the checkpoint's tokenizer has no image token {image_token!r}")
        if len(tokenizer) > vocab_size:
            raise ValueError(
                f"the checkpoint's tokenizer has {len(tokenizer)} tokens, its model {vocab_size}; "
                "they do not belong together"
            )
        self.image_id = self._backend.token_to_id(image_token)
        self.stop_ids = tuple(stop_ids)
        self.eos_id = self._end_of_turn()
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._markup = {
            IMAGE: image_token,
            EOS: self._backend.id_to_token(self.eos_id),
            PAD: self._backend.id_to_token(self.pad_id),
        }

    @property
    def vocab_size(self) -> int:
        """V of the model, which may be larger than the tokenizer's."""
        return self._vocab_size

    @property
    def banned(self) -> np.ndarray:
        """bool[V]: placeholders of pictures, padding that ends nothing, and ids without a token."""
        banned = np.arange(self.vocab_size) >= len(self._tokenizer)
        banned[[self.image_id, self.pad_id]] = True
        for token, added in self._tokenizer.added_tokens_decoder.items():
            banned[token] |= bool(_VISUAL.search(added.content))
        banned[list(self.stop_ids)] = False
        return banned

    def encode(self, text: str) -> Encoding:
        """Encodes text; special tokens in it become their ids, so user text must be escaped at ingest."""
        translated, shifts = _translate(text, self._markup)
        encoded = self._backend.encode(translated, add_special_tokens=False)
        starts, moves = np.array(shifts).T
        places = np.array(encoded.offsets, int).reshape(-1, 2)
        places -= moves[np.searchsorted(starts, places, side="right") - 1]
        return Encoding(tuple(encoded.ids), tuple(map(tuple, places.tolist())))

    def chat_text(self, messages: Sequence[Mapping[str, Any]], *, answered: bool = True) -> str:
        """Messages as the checkpoint's template writes them, up to where the answer begins if there is to be one."""
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answered)

    def save(self, path: str) -> None:
        """Writes the tokenizer's files and its chat template to the folder `path`."""
        self._tokenizer.save_pretrained(os.fspath(path))

    def _end_of_turn(self) -> int:
        """The first stop id behind an answer in the template; without a template, the first one."""
        if not self._tokenizer.chat_template:
            return self.stop_ids[0]
        turns = [
            {"role": role, "content": [{"type": "text", "text": _ANSWER}]} for role in ("user", "assistant")
        ]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        behind = self._backend.encode(text.rpartition(_ANSWER)[2], add_special_tokens=False).ids
        return next((token for token in behind if token in self.stop_ids), self.stop_ids[0])


def load_checkpoint_tokenizer(
    directory: str | Path, *, image_token: str, chat_template: str | None = None
) -> CheckpointTokenizer:
    """Reads tokenizer, chat template, stop ids and vocabulary size from a checkpoint's directory.

    Runs no code from the directory and downloads nothing.

    Args:
        directory: a Hugging Face directory.
        image_token: what stands once for every visual token.
        chat_template: for a checkpoint whose folder has none.

    Raises:
        OSError: the directory has no tokenizer.
        ValueError: the tokenizer has no such image token or more tokens than the model, or no file names an
            end token.
    """
    directory = Path(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    template = chat_template or _processor_template(directory)
    if template is not None:
        tokenizer.chat_template = template
    config = _text_config(directory)
    return CheckpointTokenizer(
        tokenizer,
        image_token=image_token,
        vocab_size=config.vocab_size,
        stop_ids=_stop_ids(directory, config.eos_token_id, tokenizer.eos_token_id),
    )


def _text_config(directory: Path) -> transformers.PretrainedConfig:
    """The language model's config; BAGEL keeps it in a file of its own."""
    own = directory / "llm_config.json"
    if own.exists():
        return transformers.Qwen2Config.from_json_file(own)
    return transformers.AutoConfig.from_pretrained(directory, local_files_only=True).get_text_config()


def _processor_template(directory: Path) -> str | None:
    """The template of an older processor, which knows images where the tokenizer's own may not."""
    old, new = directory / "chat_template.json", directory / "chat_template.jinja"
    if new.exists() or not old.exists():
        return None
    return read_json_object(old).get("chat_template")


def _stop_ids(directory: Path, *fallbacks: int | Sequence[int] | None) -> tuple[int, ...]:
    """Of the generation config; else the first of `fallbacks` that is set."""
    path = directory / "generation_config.json"
    generation = read_json_object(path) if path.exists() else {}
    for ids in (generation.get("eos_token_id"), *fallbacks):
        if ids is not None:
            return (ids,) if isinstance(ids, int) else tuple(ids)
    raise ValueError(f"no file in {directory} names an end token; add eos_token_id to generation_config.json")


def _translate(text: str, markup: Mapping[str, str]) -> tuple[str, list[tuple[int, int]]]:
    """Replaces markup. Returns the text, and from which place in it on characters have moved by how much."""
    pieces, shifts, length, end = [], [(0, 0)], 0, 0
    for found in re.finditer("|".join(map(re.escape, markup)), text):
        before, token = text[end : found.start()], markup[found.group()]
        end = found.end()
        pieces += [before, token]
        length += len(before) + len(token)
        shifts.append((length, length - end))
    return "".join([*pieces, text[end:]]), shifts
