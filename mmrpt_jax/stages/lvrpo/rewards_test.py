import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import Wording, encode_branches, encode_prompts
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.rewards import score
from mmrpt_jax.scenes import Clause, Clauses, Object, Scene, render
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.lvrpo.arms import ARMS, reward_weights
from mmrpt_jax.stages.lvrpo.examples_test import make_run, one_device
from mmrpt_jax.stages.lvrpo.rewards import drawing_rewards, open_encoder, self_judgement
from mmrpt_jax.training.drawings import DrawingPrompts
from mmrpt_jax.training.processes import Share

RED_CIRCLE = Clauses((Clause("circle", color="red"),))
PLACED = Clauses((Clause("square"), Clause("circle", relation=("above", 0))))
COUNTED = Clauses((Clause("cross", 4),), exclude=(Clause("cross", 5),))
RED, BLUE = (
    render(Scene((Object("circle", color, "large", 20, 20), *more)))
    for color, more in (("red", ()), ("blue", (Object("cross", "red", "small", 48, 48),)))
)


def prompts_of(texts, clauses):
    return DrawingPrompts(None, texts, {"clauses": clauses}, np.arange(len(texts)))


# What counts, and how much.


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("lvrpo", {"instruction_soft": 0.5, "prompt_likelihood": 2.0}),
        ("shuffled", {"instruction_soft": 0.5, "prompt_likelihood": 2.0}),
        ("strict_only", {"instruction_strict": 1.0}),
        ("likelihood_only", {"prompt_likelihood": 1.0}),
    ],
)
def test_weights_are_those_of_the_config_or_of_the_arm(arm, expected):
    rewards = {"instruction_strict": 0.0, "instruction_soft": 0.5, "prompt_likelihood": 2.0, "knowledge": 0.0}
    weights = reward_weights(ConfigDict({"generation": {"rewards": rewards}}), ARMS[arm])
    assert weights == expected
    assert {name: weight for name, (_, weight) in drawing_rewards(weights).items()} == expected


class Encoder:
    """The circle's colour is the picture's meaning."""

    def encode_images(self, images):
        return np.array([[image[20, 20, 0], image[20, 20, 2]] for image in images], float)

    def encode_texts(self, texts):
        return np.array([["red" in text, "blue" in text] for text in texts], float)


ENCODER = Encoder()


class StoredEncoder(Encoder):
    def __init__(self, directory):
        self.directory = directory


def test_a_configured_mix_by_hand():
    weights = {
        "instruction_strict": 1.0,
        "instruction_soft": 0.5,
        "prompt_likelihood": 2.0,
        "knowledge": 4.0,
        "image_text_cosine": 8.0,
    }
    columns = {
        "images": [RED, BLUE],
        "clauses": [RED_CIRCLE, RED_CIRCLE],
        "prompt_likelihood": [0.25, 0.125],
        "answers": [["yes", "one", "red", "no"], ["yes", "no", "red", "yes"]],
    }
    table = score(
        drawing_rewards(weights, ENCODER),
        prompts=["a red circle"] * 2,
        completions=[""] * 2,
        columns=columns,
        gate=None,
    )
    # Of the blue circle the number is right and the colour is not.
    cosines = [
        np.float32(image[20, 20, 0]) / np.hypot(*np.float32(image[20, 20, [0, 2]])) for image in (RED, BLUE)
    ]
    assert table.total.tolist() == pytest.approx(
        [1 + 0.5 + 2 * 0.25 + 4 + 8 * cosines[0], 0.25 + 2 * 0.125 + 4 * 0.5 + 8 * cosines[1]], rel=1e-5
    )
    assert cosines[0] > 0.9 > 0.5 > cosines[1]


class Dense:
    """A picture has two patches, one of the circle and one of the ground; words mean what they say."""

    def encode_patches(self, images):
        return [image[[20, 0], [20, 0]][:, [0, 2]].astype(float) for image in images]

    def encode_tokens(self, texts):
        return [np.array([[word == "red", word == "blue"] for word in text.split()], float) for text in texts]


def test_every_word_finds_its_place():
    """Cosines of "red" and of "blue" with what is red and with white ground, by the options of the config."""
    options = {"pooling": "mean", "global_weight": 0.0}
    table = score(
        drawing_rewards({"dense_grounding": 2.0}, Dense(), options),
        prompts=["red", "blue"],
        completions=[""] * 2,
        columns={"images": [RED, RED]},
        gate=None,
    )
    circle, ground = RED[20, 20, [0, 2]].astype(float), RED[0, 0, [0, 2]].astype(float)
    expected = [sum(x[i] / np.hypot(*x) for x in (circle, ground)) for i in range(2)]
    assert table.total.tolist() == pytest.approx(expected)
    assert expected[0] > expected[1]


def test_an_encoder_is_opened_by_its_name():
    assert open_encoder("") is None
    # A class is made, an encoder is taken as it is.
    assert isinstance(open_encoder(f"{__name__}:Encoder"), Encoder)
    assert open_encoder(f"{__name__}:ENCODER") is ENCODER
    # What stands behind a second colon is given to the call, colons and all.
    assert open_encoder(f"{__name__}:StoredEncoder:a:b").directory == "a:b"
    # What a run asks for a second time is not made a second time.
    assert open_encoder(f"{__name__}:Encoder") is open_encoder(f"{__name__}:Encoder")


def broken():
    """A hook with a mistake of its own, told in two lines."""
    raise KeyError("no weights\nin here")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Encoder", "No module named 'no_such_module'"),
        (f"{__name__}:Missing", "has no attribute 'Missing'"),
        (
            f"{__name__}:SimpleNamespace",
            "has neither encode_images and encode_texts, nor",
        ),
        (f"{__name__}:broken", "broken': KeyError: 'no weights.*in here'$"),
    ],
)
def test_what_is_no_encoder_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        open_encoder(name)


# What the model itself has to say.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), mesh=one_device())


@pytest.fixture(scope="module")
def judge(run):
    return random_parameters(run.model)


@pytest.fixture(scope="module")
def images():
    """Two groups of three."""
    return np.random.default_rng(5).integers(0, 256, (6, 64, 64, 3), np.uint8)


def test_likelihood_of_the_prompt_by_hand(run, judge, images):
    texts = ["draw a red circle .", "there are two green triangles ."]
    judged = self_judgement(run, judge, {"prompt_likelihood": None})
    found = judged("not asked", prompts_of(texts, [RED_CIRCLE] * 2), images)
    assert found.keys() == {"prompt_likelihood"} and len(found["prompt_likelihood"]) == 6
    # One image at a time, as a caption with its end token.
    alone = jax.jit(functools.partial(forward, run.vlm))
    prompt = encode_prompts(run.tokenizer, [Wording().caption], image_tokens=4, lengths=(40,))
    expected = []
    for place, image in enumerate(images):
        ids = list(run.tokenizer.encode(texts[place // 3] + EOS).ids)
        branch = encode_branches(run.tokenizer, [[texts[place // 3] + EOS]], lengths=(20,))
        logprobs = np.asarray(alone(judge, image[None, None], prompt, branch).logprobs)[0, 0, : len(ids)]
        expected.append(np.prod(np.exp(np.float64(logprobs))) ** (1 / len(ids)))
    np.testing.assert_allclose(found["prompt_likelihood"], expected, rtol=1e-4)
    # The image matters, or there would be nothing to learn from.
    assert len(set(np.round(expected[:3], 6))) == 3


class Examined:
    """Stands for an evaluator; its answers say what it was asked of which image."""

    def __init__(self, reply="<think></think><answer>{}</answer>"):
        self.judges, self.reply = [], reply

    def generate(self, judge, images, prompts):
        self.judges.append(judge)
        pairs = zip(images, prompts, strict=True)
        return [self.reply.format(f"{image[0, 0, 0]} {prompt}") for (image,), prompt in pairs]

    def log_likelihoods(self, judge, images, prompts, candidates):
        """log p(yes) - log p(no) is 0.1 per brightness of the image, and 1 more of a red thing."""
        self.judges.append(judge)
        assert candidates == [
            ["<think></think><answer>yes</answer><eos>", "<think></think><answer>no</answer><eos>"]
        ] * len(prompts)
        pairs = zip(images, prompts, strict=True)
        return [np.array([image[0, 0, 0] / 10 + ("red" in prompt) - 5.0, -5.0]) for (image,), prompt in pairs]


def run_with(examined):
    share = Share()

    def evaluator(*, batch_size, batches):
        assert batch_size == 7 and batches is share
        return examined

    config = ConfigDict({"generation": {"questions_at_a_time": 7}})
    return SimpleNamespace(config=config, evaluator=evaluator, wording=Wording(), share=share)


def numbered(count):
    """Images that are told apart by their brightness."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))


QUESTIONS = [
    [
        "is there a circle ?",
        "how many circles are there ?",
        "what color is the circle ?",
        "is there a square ?",
    ],
    ["is there a cross ?", "how many crosses are there ?", "is there a circle ?"],
]


def test_every_image_is_asked_about_its_own_prompt():
    examined = Examined()
    judged = self_judgement(run_with(examined), "judge", {"knowledge": None})
    found = judged("policy", prompts_of(["", ""], [RED_CIRCLE, COUNTED]), numbered(6))
    assert found == {
        "answers": [
            [f"{image} <image> answer the question : {question}" for question in QUESTIONS[image // 3]]
            for image in range(6)
        ]
    }
    # Whoever draws does not judge.
    assert examined.judges == ["judge"]


def test_answers_that_cannot_be_read_are_empty():
    judged = self_judgement(run_with(Examined(reply="<answer>{}")), "judge", {"knowledge": None})
    found = judged("policy", prompts_of(["", ""], [RED_CIRCLE, COUNTED]), numbered(2))
    assert found == {"answers": [[""] * 4, [""] * 3]}


def test_assent_is_a_mean_over_what_the_prompt_names():
    examined = Examined()
    judged = self_judgement(run_with(examined), "judge", {"yes_probability": None})
    both = Clauses((Clause("circle", color="red"), Clause("cross", color="blue")))
    found = judged("policy", prompts_of(["", ""], [both, PLACED]), numbered(4))

    def sure(odds):
        return 1 / (1 + np.exp(-odds))

    expected = [(sure(1.0) + sure(0.0)) / 2, (sure(1.1) + sure(0.1)) / 2, sure(0.2), sure(0.3)]
    np.testing.assert_allclose(found["yes_probability"], expected, rtol=1e-5)
    assert examined.judges == ["judge"]


def test_only_what_counts_is_computed():
    run = SimpleNamespace(evaluator=None)
    assert self_judgement(run, None, {"instruction_strict": None})("policy", None, numbered(2)) == {}
    both = self_judgement(run_with(Examined()), "judge", {"yes_probability": None, "knowledge": None})
    assert both(None, prompts_of([""], [RED_CIRCLE]), numbered(2)).keys() == {"yes_probability", "answers"}
