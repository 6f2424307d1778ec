"""Which words can be an answer?  A small list of English words that say nothing about an image.

Articles, auxiliaries, pronouns, empty prepositions, and the words captions open with ("the image shows ...").
Numbers, quantifiers, colours, positions and relations ("three", "none", "left", "above") describe the image
and are content.
"""

_LISTED = """
a an the this that these those such
i me my you your he him his she her hers it its we us our they them their theirs one's itself themselves
who whom whose which what when where why how
am is are was were be been being do does did doing done have has had having
can could may might must shall should will would
and or but nor so yet if then than as because while although though whereas since until unless
of to in on at by for with from into onto upon about via per among within during
there here also just very quite rather too really some any other another own same
image images picture pictures photo photos photograph scene view
show shows shown showing depict depicts depicted depicting contain contains containing
feature features featuring display displays displayed see seen visible
it's that's there's here's he's she's they're we're you're i'm isn't aren't wasn't weren't doesn't don't
didn't hasn't haven't hadn't can't couldn't won't wouldn't
"""
STOP_WORDS = frozenset(_LISTED.split())


def is_word(unit: str) -> bool:
    """Says whether a unit is no mere punctuation: it has a letter or a digit."""
    return any(character.isalnum() for character in unit)


def is_content_word(unit: str) -> bool:
    """Says whether a unit can name something seen: a word that is not in `STOP_WORDS`, upper case ignored."""
    return is_word(unit) and unit.lower().replace("’", "'") not in STOP_WORDS
