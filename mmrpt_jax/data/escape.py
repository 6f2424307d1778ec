"""Keep special tokens out of user text.

A caption that contains the literal string ``<image>`` would otherwise become an image placeholder with no
image behind it.
"""

import re

# Angle-bracket tags (<image>, </think>, <|im_start|>, <global-img>) and bracketed placeholders ([MASK], [IMG]).
_SPECIAL = re.compile(r"<(?=/?\|?[A-Za-z_][\w -]*\|?>)|\[(?=/?[A-Z_]{2,}\])")
_SPACED = {"<": "< ", "[": "[ "}


def escape_placeholders(text: str) -> str:
    """Returns `text` with every string that a tokenizer could take for a special token broken by a space.

    ``"a <image> of [MASK]"`` becomes ``"a < image> of [ MASK]"``. Idempotent; text without such strings is
    unchanged.
    """
    return _SPECIAL.sub(lambda match: _SPACED[match.group()], text)
