import pytest

from mmrpt_jax.data.preprocessing.families import BAGEL_TEXT, image_text
from mmrpt_jax.data.preprocessing.image_text import FramedRun, NumberedTiles, expand_images
from mmrpt_jax.data.preprocessing.preprocessor import Layout

WHOLE, SPLIT = Layout(0, 0, (2,)), Layout(2, 1, (1, 2, 3))


def test_a_run_stands_in_its_frame():
    assert FramedRun("P", "i", "(", ")").write(WHOLE) == "(ii)"
    assert BAGEL_TEXT.write(WHOLE) == "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"


def test_crops_come_with_a_sentence():
    run = FramedRun("P", "i", "(", ")", with_crops="all {whole} and {crops}")
    assert run.write(SPLIT) == "all (i) and (ii) (iii)"
    assert run.write(WHOLE) == "(ii)"


def test_tiles_are_numbered_row_by_row():
    text = NumberedTiles("P", "i", "|", "<all>")
    assert text.write(WHOLE) == "|<all>ii|"
    assert text.write(SPLIT) == "|<row_1_col_1>i\n|<row_2_col_1>ii\n\n|<all>iii|"


def test_images_stand_where_their_placeholders_do():
    # What is written may hold the placeholder itself.
    text = FramedRun("P", "P", "(", ")")
    assert expand_images("a P b P", text, [WHOLE, Layout(0, 0, (1,))], sample=0) == "a (PP) b (P)"
    assert expand_images("a", text, [], sample=0) == "a"


@pytest.mark.parametrize(("text", "count"), [("P P", 2), ("", 0)])
def test_placeholders_without_images_name_the_sample(text, count):
    with pytest.raises(
        ValueError, match=rf"sample 'id7' has {count} image placeholders for 1 images; give each"
    ):
        expand_images(text, FramedRun("P", "i"), [WHOLE], sample="id7")


def test_families_without_texts_or_names_are_refused():
    with pytest.raises(ValueError, match="the family 'siglip' read images only"):
        image_text("siglip")
    with pytest.raises(
        ValueError, match="no image preprocessing for model_type 'gpt2'; choose one of qwen2_5_vl"
    ):
        image_text("gpt2")
