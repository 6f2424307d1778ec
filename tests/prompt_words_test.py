"""The tokenizer that is shipped has a token for every word of every prompt."""

from mmrpt_jax.data import load_tokenizer
from mmrpt_jax.scenes import WORLDS, prompt_at, tags_of
from tests.source_tree import ROOT


def test_every_word_of_a_prompt_is_one_token():
    tokenizer = load_tokenizer(str(ROOT / "mmrpt_jax" / "assets" / "scenes_base" / "tokenizer.json"))
    asked = [
        prompt_at(world, tag, 0, i).text
        for world in WORLDS.values()
        for tag in tags_of(world)
        for i in range(150)
    ]
    words = {word for text in asked for word in text.split()}
    assert [word for word in sorted(words) if len(tokenizer.encode(word).ids) > 1] == []
    for text in asked:
        assert len(tokenizer.encode(text).ids) == len(text.split())
