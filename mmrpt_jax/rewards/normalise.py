"""When do two answers count as the same? One stated normalisation, used by every answer reward.

Our choice (the MMRPT paper's normalisation is not public), close to what SQuAD and VQA scoring do:

1. Unicode NFKC and case folding;
2. split on whitespace;
3. strip quotes, brackets and sentence marks from both ends of each word, full stops from its right end only
   (`.5` keeps its point, and `-5`, `$5`, `50%`, `x-ray`, `3.5` stay as they are);
4. drop the articles a, an, the, unless nothing else is left (`A` can be a multiple-choice answer).
"""

import unicodedata

ARTICLES = frozenset({"a", "an", "the"})

# Function words that name nothing in an image. Negations, numbers and words of place (left, above, in, on,
# between) are left out on purpose: a caption's truth can hang on them.
_FUNCTION_WORDS = """
about also am and any are as at be been being but by can could did do does for from had has have he her
hers him his how i if is it its itself may me might must my of or our ours shall she should so some such
than that their theirs them then there these they this those to too us very was we were what when where
which while who whom whose why will with would you your yours
"""
STOP_WORDS = ARTICLES | frozenset(_FUNCTION_WORDS.split())

_MARKS = "\"'`“”‘’«»()[]{}<>,;:!?¡¿*_"


def words(text: str) -> list[str]:
    """Returns the normalised words of `text`, in order; an empty list if it holds nothing but marks."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    stripped = [word.lstrip(_MARKS).rstrip(_MARKS + ".") for word in folded.split()]
    found = [word for word in stripped if word]
    return [word for word in found if word not in ARTICLES] or found


def normalise(text: str) -> str:
    """Returns the normalised words of `text` joined by single spaces."""
    return " ".join(words(text))
