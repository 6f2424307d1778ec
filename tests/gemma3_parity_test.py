"""Gemma 3 against `transformers`: same checkpoint, same visibility, logits and greedy tokens.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import copy
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from mmrpt_jax.models import VLM, PromptTokens
from mmrpt_jax.models.families.gemma3 import model_config
from mmrpt_jax.models.places import prompt_places
from mmrpt_jax.models.vision import VisualTokens
from tests.family_parity import (
    END,
    IMAGE,
    START,
    VOCAB,
    check_greedy_tokens,
    check_logits,
    check_options,
    check_round_trip,
    make_batch,
    open_random,
    torch,
)

gemma3 = transformers.models.gemma3.modeling_gemma3

PATCH, MERGE, WINDOW = 4, 2, 6
# An image of 2 x 2 visual tokens fits into the window; a prompt does not.
TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    query_pre_attn_scalar=20,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention"] * 2,
    rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=None,
)
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=16,
    patch_size=PATCH,
    vision_use_head=False,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = transformers.Gemma3Config(
        text_config=TEXT,
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )
    return open_random(transformers.Gemma3ForConditionalGeneration(config), tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="module")
def batch():
    """A prompt with an image, one with three, one without."""
    return make_batch([[(4, 4)], [(4, 4)] * 3, []], PATCH, MERGE)


def their_logits(checkpoint, ids, images):
    inputs = {"input_ids": torch.tensor(ids)[None], "token_type_ids": torch.tensor(ids == IMAGE)[None].int()}
    if images:
        pixels = torch.tensor(np.stack(images) / 127.5 - 1, dtype=torch.float32)
        inputs["pixel_values"] = pixels.permute(0, 3, 1, 2)
    with torch.no_grad():
        return checkpoint.theirs(**inputs).logits[0].numpy()


def test_visibility(checkpoint, batch):
    """Which token sees which, in layers with a window and in the others."""
    row = batch.rows[1]
    text = checkpoint.theirs.config.get_text_config()
    masks = gemma3.create_masks_for_vision_model(
        config=text,
        inputs_embeds=torch.zeros(1, len(row), 1),
        attention_mask=torch.ones(1, len(row)),
        past_key_values=None,
        position_ids=None,
        block_sequence_ids=gemma3.get_block_sequence_ids_for_mask(torch.tensor(row == IMAGE)[None].int()),
    )
    number = jnp.repeat(jnp.arange(3), 4)[None]
    tokens = prompt_places(
        checkpoint.config,
        PromptTokens(row[None], row[None] >= 0, row[None] == IMAGE),
        VisualTokens(None, number, number, number),
    )
    order, places = np.asarray(tokens.order[0, 0]), np.asarray(tokens.places[0, 0])
    whole = order <= order[:, None]
    local = whole & (np.abs(places - places[:, None]) < checkpoint.config.decoder.local_reach)
    np.testing.assert_array_equal(whole, masks["full_attention"][0, 0].numpy())
    np.testing.assert_array_equal(local, masks["sliding_attention"][0, 0].numpy())


def test_logits(checkpoint, batch):
    check_logits(checkpoint, batch, their_logits)


def test_greedy_tokens(checkpoint, batch):
    check_greedy_tokens(checkpoint, batch, their_logits)


def test_soft_caps(checkpoint, batch, monkeypatch):
    """`transformers` reads the caps of this family and applies neither; here their own code is made to."""
    numbers = json.loads((checkpoint.folder / "config.json").read_text())
    numbers["text_config"] |= {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    uncapped, attend = (
        their_logits(checkpoint, batch.rows[1], batch.images[1]),
        gemma3.eager_attention_forward,
    )

    def capped_attend(*args, **options):
        return attend(*args, **options, softcap=2.0)

    def their_capped_logits(*args):
        return 3 * np.tanh(their_logits(*args) / 3)

    monkeypatch.setattr(gemma3, "eager_attention_forward", capped_attend)
    monkeypatch.setattr(checkpoint.theirs.config.text_config, "_attn_implementation", "eager")
    assert np.abs(their_logits(checkpoint, batch.rows[1], batch.images[1]) - uncapped).max() > 0.01
    check_logits(checkpoint._replace(config=model_config(numbers)), batch, their_capped_logits)


def test_weights_come_back_bit_for_bit(checkpoint, tmp_path):
    check_round_trip(checkpoint, tmp_path)


def test_every_option_matters(checkpoint, batch):
    config, decoder = checkpoint.config, checkpoint.config.decoder
    unstretched = dataclasses.replace(decoder.rope, stretch=1.0)
    changed = [
        dataclasses.replace(config, decoder=dataclasses.replace(decoder, **option))
        for option in (
            {"rope": unstretched},
            {"local_rope": None},
            {"local_reach": WINDOW + 1},
        )
    ]
    check_options(checkpoint, batch, [*changed, dataclasses.replace(config, image_attention="causal")])


def test_embeddings_are_scaled_in_the_type_of_the_parameters(checkpoint):
    """sqrt(32) is 5.657, in bfloat16 5.65625."""
    theirs = copy.deepcopy(checkpoint.theirs.get_input_embeddings()).to(torch.bfloat16)
    ids = np.arange(VOCAB)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).float().numpy()
    half = {**checkpoint.params, "embedding": jnp.asarray(checkpoint.params["embedding"], jnp.bfloat16)}
    config = dataclasses.replace(checkpoint.config, compute_dtype="bfloat16")
    found = VLM(config).apply({"params": half}, ids, method=VLM.embed)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_what_a_config_leaves_out():
    """The files of the 4B say little; `transformers` knows the rest."""
    brief = {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }
    config = model_config(json.loads(json.dumps(brief)))
    assert config == model_config(transformers.Gemma3Config(**brief).to_dict())
    assert config.decoder.local_layers[:7] == (True,) * 5 + (False, True)
    assert config.vision.connector.merge == 4
