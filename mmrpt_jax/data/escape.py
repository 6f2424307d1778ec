"""Keep special tokens out of user text.

A caption that contains the literal string ``<image>`` would otherwise become an image placeholder with no
image behind it.
"""

import re

# <image>, </think>, <|im_start|>, <global-img>, <tool_call|>; whatever stands between bars, as in <|0.00|>, with
# DeepSeek's wide bars too; [MASK], [/INST], [gMASK], [CONTROL_8], [unused1].
_SPECIAL = re.compile(
    r"<(?=[/|｜]{0,2}[^\W\d][\w .:▁-]*[|｜]?>)|<(?=[|｜][^<>\s]*[|｜]>)"
    r"|\[(?=/?[a-z]?[A-Z_]{2,}[A-Z0-9_]*\])|\[(?=unused\d+\])"
)
_SPACED = {"<": "< ", "[": "[ "}


def escape_placeholders(text: str) -> str:
    """Returns `text` with every string that a tokenizer could take for a special token broken by a space.

    ``"a <image> of [MASK]"`` becomes ``"a < image> of [ MASK]"``. Idempotent; text without such strings is
    unchanged.
    """
    return _SPECIAL.sub(lambda match: _SPACED[match.group()], text)
