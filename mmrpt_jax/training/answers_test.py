import dataclasses
import functools

import jax
import numpy as np
import pytest

from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.models import PromptTokens
from mmrpt_jax.objectives import group_advantages, sum_then_normalise
from mmrpt_jax.rewards import RewardError, exact_match, format_reward
from mmrpt_jax.sampling import Rollout
from mmrpt_jax.training.answers import Answering, PromptBatch, collect_answers, judge

B, G, R = 2, 4, 12
ANSWERS = [["red", "blue", "red", "blue"], ["circle", "square", "square", "square"]]
BATCH = PromptBatch(
    images=np.zeros((B, 1, 2, 2, 3), np.uint8),
    # Six of sixteen tokens are padding.
    prompt=PromptTokens(np.ones((B, 8), np.int32), np.arange(8) < [[4], [6]], np.zeros((B, 8), bool)),
    texts=["what color ?", "what shape ?"],
    columns={"answer": ["red", "circle"], "id": ["a", "b"]},
)
ADVANTAGE = functools.partial(sum_then_normalise, advantage_fn=functools.partial(group_advantages, eps=0.0))
# Totals are 1.1 for the truth and 0.1 for others. First group: mean 0.6, std √(4·0.25 / 3); second: 0.35 and 0.5.
FIRST = 0.5 / (1 / 3) ** 0.5
ADVANTAGES = [[FIRST, -FIRST, FIRST, -FIRST], [1.5, -0.5, -0.5, -0.5]]


def well_formed(answer):
    return f"<think></think><answer> {answer}</answer>"


def rollout_of(tokenizer, texts, *, truncated=()):
    """Groups of texts as if sampled; those at the indices `truncated` lack the end token."""
    ids, valid = np.zeros((B, G, R), np.int32), np.zeros((B, G, R), bool)
    for b, g in np.ndindex(B, G):
        tokens = tokenizer.encode(texts[b][g] + ("" if (b, g) in truncated else EOS)).ids
        ids[b, g, : len(tokens)], valid[b, g, : len(tokens)] = tokens, True
    cut = np.zeros((B, G), bool)
    for index in truncated:
        cut[index] = True
    return Rollout(ids, valid, np.where(valid, np.float32(-1), 0), cut)


@pytest.fixture
def parts(tiny_tokenizer):
    texts = [[well_formed(answer) for answer in group] for group in ANSWERS]
    return Answering(
        rollout=lambda *_: rollout_of(tiny_tokenizer, texts),
        rewards={"exact_match": (exact_match, 1.0), "format": (format_reward, 0.1)},
        advantage=ADVANTAGE,
        tokenizer=tiny_tokenizer,
        group_size=G,
    )


def collect(parts, step=0):
    return collect_answers(parts, {"w": 0}, BATCH, jax.random.key(0), step)


def test_rewards_see_texts_and_repeated_columns(parts):
    seen = {}

    def reward(**batch):
        seen.update(batch)
        return [0.0] * len(batch["completions"])

    parts = dataclasses.replace(
        parts,
        rewards={"spy": (reward, 1.0)},
        more_columns=lambda params, batch, completions: {"extra": [f"{params} {c}" for c in completions]},
    )
    rollout = parts.rollout()
    judged = judge(parts, "params", BATCH, jax.random.key(0))
    completions = [well_formed(answer) for group in ANSWERS for answer in group]
    assert seen.pop("completion_ids")[1] == rollout.ids[0, 1][rollout.valid[0, 1]].tolist()
    assert seen == {
        "prompts": ["what color ?"] * 4 + ["what shape ?"] * 4,
        "completions": completions,
        "answer": ["red"] * 4 + ["circle"] * 4,
        "id": ["a"] * 4 + ["b"] * 4,
        "extra": [f"params {text}" for text in completions],
    }
    assert judged.completions == [completions[:4], completions[4:]]


def test_advantages_by_hand(parts):
    judged = judge(parts, None, BATCH, jax.random.key(0))
    np.testing.assert_allclose(judged.judgement.advantages, ADVANTAGES, rtol=1e-6)


def test_what_was_sampled_is_to_be_learned_from(parts):
    logprobs = np.full((B, G, R), -2.0, np.float32)
    written = []
    parts = dataclasses.replace(
        parts,
        ref_logprobs=lambda images, prompt, branches, packing: logprobs,
        on_judged=lambda step, judged: written.append((step, judged.completions[0][0])),
    )
    batch, _ = collect(parts, step=7)
    np.testing.assert_array_equal(batch.branches.ids, parts.rollout().ids)
    np.testing.assert_array_equal(batch.behaviour_logprobs, parts.rollout().logprobs)
    np.testing.assert_allclose(batch.advantages, ADVANTAGES, rtol=1e-6)
    assert batch.trained.all() and batch.ref_logprobs is logprobs
    assert written == [(7, well_formed("red"))]


def test_metrics_by_hand(parts, tiny_tokenizer):
    texts = [[well_formed("red")] * 4, [well_formed("circle"), "circle", well_formed("square"), "<think>"]]
    rollout = rollout_of(tiny_tokenizer, texts, truncated=[(1, 3)])
    _, metrics = collect(dataclasses.replace(parts, rollout=lambda *_: rollout))
    expected = {
        "reward/exact_match": 5 / 8,
        "reward/format": 6 / 8,
        "reward": (5 * 1.1 + 0.1) / 8,
        "zero_variance_share": 0.5,
        "truncated_share": 1 / 8,
        "unparsed_share": 2 / 8,
        "tokens_per_completion": rollout.valid.sum() / 8,
        "padded_share": 1 - (10 + rollout.valid.sum()) / (2 * 8 + 8 * R),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6), name


def test_answers_that_are_learned_from_share_rows(parts, tiny_tokenizer):
    texts = [["red", "blue", "red", "blue"], ["circle circle", "square", "", "square"]]
    rollout = rollout_of(tiny_tokenizer, texts, truncated=[(0, 1)])
    lengths = rollout.valid.sum(-1)
    assert lengths.sum(axis=-1).max() <= R
    parts = dataclasses.replace(
        parts, rollout=lambda *_: rollout, train_on_truncated=False, packed_lengths=(1, R, 2 * R)
    )
    packed, metrics = collect(parts)
    assert packed.packing.branch.shape == (B, R)
    learned = [
        {(g, r) for g, r in zip(*row, strict=True) if g >= 0} for row in zip(*packed.packing, strict=True)
    ]
    expected = [{(g, r) for g in range(G) for r in range(lengths[b, g])} for b in range(B)]
    expected[0] -= {(1, r) for r in range(R)}
    assert learned == expected
    assert metrics["padded_share"] == pytest.approx(
        1 - (10 + lengths.sum() - lengths[0, 1]) / (2 * 8 + 2 * R)
    )
    for lengths in ((), (1,), (G * R,)):
        assert collect(dataclasses.replace(parts, packed_lengths=lengths))[0].packing is None


def test_what_no_reward_can_score_is_left_out(parts):
    def unsure(completions, **columns):
        return [None if "blue" in text else float("circle" in text or "red" in text) for text in completions]

    batch, metrics = collect(dataclasses.replace(parts, rewards={"unsure": (unsure, 1.0)}))
    np.testing.assert_array_equal(batch.trained, [[True, False, True, False], [True] * 4])
    # The two red answers are alone in their group, and alike.
    np.testing.assert_allclose(batch.advantages, [[0] * 4, [1.5, -0.5, -0.5, -0.5]], rtol=1e-6)
    assert metrics["reward"] == pytest.approx(3 / 6)
    assert metrics["reward/unsure"] == pytest.approx(3 / 6)
    assert metrics["zero_variance_share"] == 0.5


def test_a_batch_that_no_reward_can_score(parts):
    batch, metrics = collect(dataclasses.replace(parts, rewards={"never": (lambda **_: [None] * 8, 1.0)}))
    assert not batch.trained.any()
    assert metrics["reward"] == 0.0 and "reward/never" not in metrics


def test_a_reward_that_raises_is_named_with_its_example(parts):
    def fragile(completions, **columns):
        return [{"red": 1.0, "blue": 0.0, "circle": 1.0}[text[24:-9]] for text in completions]

    with pytest.raises(
        RewardError, match=r"'fragile' raised KeyError: 'square' on example 5, .*square"
    ) as error:
        collect(dataclasses.replace(parts, rewards={"fragile": (fragile, 1.0)}))
    assert (error.value.reward, error.value.index) == ("fragile", 5)


def test_truncated_answers_leave_the_loss_but_not_the_baseline(parts, tiny_tokenizer):
    texts = [[well_formed(answer) for answer in group] for group in ANSWERS]
    rollout = rollout_of(tiny_tokenizer, texts, truncated=[(0, 1), (1, 0)])
    batch, _ = collect(dataclasses.replace(parts, rollout=lambda *_: rollout, train_on_truncated=False))
    np.testing.assert_array_equal(batch.trained, ~rollout.truncated)
    np.testing.assert_allclose(batch.advantages, ADVANTAGES, rtol=1e-6)


FLAT = [["red"] * G, ["circle"] * G]


@pytest.mark.parametrize(
    ("groups", "keep", "chosen"),
    [
        # Groups that vary come first, in their order; flat ones only fill up.
        ([FLAT[0], ANSWERS[1]], 1, [1]),
        (ANSWERS, 1, [0]),
        (FLAT, 1, [0]),
        ([FLAT[0], ANSWERS[1]], 2, [0, 1]),
        ([FLAT[0], ANSWERS[1]], None, [0, 1]),
    ],
)
def test_groups_without_variance_are_passed_over(parts, tiny_tokenizer, groups, keep, chosen):
    drawn = rollout_of(tiny_tokenizer, [list(map(well_formed, group)) for group in groups])
    parts = dataclasses.replace(
        parts,
        rollout=lambda *_: drawn,
        keep=keep,
        ref_logprobs=lambda images, prompt, branches, packing: np.full(branches.ids.shape, -3.0),
    )
    batch, metrics = collect(parts)
    np.testing.assert_array_equal(batch.branches.ids, drawn.ids[chosen])
    np.testing.assert_array_equal(batch.behaviour_logprobs, drawn.logprobs[chosen])
    assert batch.images.shape[0] == batch.trained.shape[0] == batch.advantages.shape[0] == len(chosen)
    assert batch.ref_logprobs.shape == drawn.ids[chosen].shape
    # What is reported is of all that was drawn.
    assert metrics["zero_variance_share"] == sum(group in FLAT for group in groups) / 2


@pytest.mark.parametrize("drop", [False, True])
def test_flat_groups_may_leave_the_loss(parts, tiny_tokenizer, drop):
    drawn = rollout_of(tiny_tokenizer, [list(map(well_formed, group)) for group in (FLAT[0], ANSWERS[1])])
    batch, _ = collect(dataclasses.replace(parts, rollout=lambda *_: drawn, drop_zero_variance=drop))
    np.testing.assert_array_equal(batch.trained, [[not drop] * G, [True] * G])
    np.testing.assert_allclose(batch.advantages, [[0.0] * G, ADVANTAGES[1]], rtol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_answers_of_all_parts_are_compared_together(parts, tiny_tokenizer, scale):
    drawn = rollout_of(tiny_tokenizer, [list(map(well_formed, group)) for group in ANSWERS])
    happened = []

    def rollout(params, images, prompt, key):
        # The first prompt is all black, the second all white.
        row = int(images.max() > 0)
        happened.append(f"sample {row}")
        return jax.tree.map(lambda array: array[row : row + 1], drawn)

    def reward(prompts, **columns):
        happened.append(f"reward {BATCH.texts.index(prompts[0])}")
        return exact_match(prompts=prompts, **columns)

    parts = dataclasses.replace(
        parts,
        rollout=rollout,
        rollout_parts=2,
        rewards={"exact_match": (reward, 1.0), "format": (format_reward, 0.1)},
        advantage=functools.partial(
            sum_then_normalise, advantage_fn=functools.partial(group_advantages, scale=scale, eps=0.0)
        ),
    )
    images = np.stack([np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)])
    batch, metrics = collect_answers(parts, None, BATCH._replace(images=images), jax.random.key(0), 0)
    assert happened == ["sample 0", "sample 1", "reward 0", "reward 1"]
    np.testing.assert_array_equal(batch.branches.ids, drawn.ids)
    np.testing.assert_array_equal(batch.behaviour_logprobs, drawn.logprobs)
    # Over the batch: of eight totals, three are 1.1 and five 0.1; their variance is 15 / 64 · 8 / 7.
    spread = (15 / 56) ** 0.5
    over_batch = [[0.5 / spread, -0.5 / spread] * 2, [0.75 / spread] + [-0.25 / spread] * 3]
    np.testing.assert_allclose(batch.advantages, ADVANTAGES if scale == "group" else over_batch, rtol=1e-5)
    assert metrics["reward/exact_match"] == 3 / 8
