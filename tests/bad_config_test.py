import functools

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from experiments.configs import lvrpo_scenes, mmrpt_scenes
from mmrpt_jax.data.records import Record, write_records
from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.linear_autoencoder import LinearAutoencoder, save_linear_autoencoder
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.lvrpo.pipeline import run_experiment as run_lvrpo
from mmrpt_jax.stages.lvrpo.validate import check_config as check_lvrpo
from mmrpt_jax.stages.mmrpt.pipeline import run_experiment as run_mmrpt
from mmrpt_jax.stages.mmrpt.validate import check_config
from mmrpt_jax.stages.opening import model_config, unified_config
from tests.miniature import miniature_config, miniature_lvrpo_config

LORA = {"rank": 4, "alpha": 16.0, "targets": ("decoder",)}


@pytest.fixture
def config():
    """A config in order."""
    config = miniature_config()
    config.init.tokenizer = ""
    return config


@pytest.fixture
def dataset(tmp_path):
    """A dataset of one record."""
    record = Record(id="a", images=[], captions=["x"], qa=[], group="a", extra="{}")
    write_records(tmp_path / "set", "set", {"train": [record]})
    return tmp_path / "set"


def test_a_good_config_passes(config, dataset, tmp_path):
    check_config(config)
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    use_records(config, dataset)
    config.init.weights = str(weights)
    check_config(config)


def use_records(config, dataset, **changes):
    with config.unlocked():
        config.data.update({"kind": "records", "path": str(dataset)} | changes)


def test_damaged_data_ends_before_anything_is_computed(config, dataset):
    shard = dataset / "set-train.array_record-00000"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    use_records(config, dataset)
    check_config(config)
    use_records(config, dataset, checksums=True)
    with pytest.raises(ConfigError, match=r"config\.data: .*set-train\.array_record-00000 was changed"):
        check_config(config)
    shard.write_bytes(data[:-1])
    use_records(config, dataset, checksums=False)
    with pytest.raises(
        ConfigError, match=r"set-train\.array_record-00000 has \d+ bytes, manifest\.json says"
    ):
        check_config(config)


def test_data_that_is_no_dataset_is_named(config, dataset, tmp_path):
    use_records(config, tmp_path)
    with pytest.raises(ConfigError, match="holds no dataset"):
        check_config(config)
    use_records(config, dataset, split="dev")
    with pytest.raises(ConfigError, match="dev"):
        check_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("caption", "socre")}, "config.stages: 'socre' is unknown, did you mean 'score'?"),
        ({"arms": ("base", "mmrp")}, "config.arms: 'mmrp' is unknown, did you mean 'mmrpt'?"),
        ({"data.kind": "scene"}, "config.data.kind: 'scene' is unknown, did you mean 'scenes'?"),
        ({"data.world": "biassed"}, "config.data.world: 'biassed' is unknown, did you mean 'biased'?"),
        ({"data.kind": "records"}, "config.data.path is empty: name a dataset made by"),
        (
            {"data.kind": "records", "data.path": "no/where"},
            "config.data.path: there is no folder no/where",
        ),
        ({"data.augment": "permute"}, "config.data.augment: 'permute' is unknown, did you mean"),
        ({"init.weights": "no/file"}, "config.init.weights: there is no file no/file"),
        ({"init.tokenizer": "no/file"}, "config.init.tokenizer: there is no file no/file"),
        ({"evaluate.worlds": ("fliped",)}, "config.evaluate.worlds: 'fliped' is unknown, did you mean"),
        ({"mask.sentence_score": "atention"}, "config.mask.sentence_score: 'atention' is unknown"),
        ({"mask.word_score": "lr"}, "config.mask.word_score: 'lr' is unknown, did you mean 'llr'?"),
        ({"fill.think": "yes"}, "config.fill.think: 'yes' is unknown"),
        (
            {"rl.loss.kl_coefficient": 0.1},
            "config.rl.loss.kl_coefficient is 0.1 and config.rl.loss.kl is 'none'",
        ),
        ({"rl.loss.variant": "grop"}, "config.rl.loss.variant: 'grop' is unknown, did you mean 'grpo'?"),
        ({"rl.loss.kl": "k1"}, "config.rl.loss.kl: 'k1' is unknown"),
        (
            {"rl.rewards": {"exact": 1.0}},
            "config.rl.rewards: 'exact' is unknown, did you mean 'exact_match'?",
        ),
        (
            {"rl.visual_gain.of": "truths"},
            "config.rl.visual_gain.of: 'truths' is unknown, did you mean 'truth'?",
        ),
        (
            {"rl.advantage.combine": "gdp"},
            "config.rl.advantage.combine: 'gdp' is unknown, did you mean 'gdpo'?",
        ),
        ({"rl.advantage.scale": "std"}, "config.rl.advantage.scale: 'std' is unknown"),
        ({"rl.rewards": {"format": 0.0}}, "config.rl.rewards: every weight is 0"),
        ({"rl.rewards": {"semantic": 1.0}}, "config.rl.semantic_encoder must name a folder"),
        ({"rl.group_size": 1}, "config.rl.group_size is 1: it must be at least 2"),
        ({"rl.packed_lengths": (8, 8)}, "config.rl.packed_lengths=(8, 8): name different numbers of tokens"),
        ({"rl.rollout_parts": 0}, "config.rl.rollout_parts is 0: it must be at least 1"),
        (
            {"rl.rollout_parts": 3},
            "config.rl.rollout_parts=3: the 8 prompts of a step (prompts_per_step · oversample) do not divide into",
        ),
        (
            {"rl.rollout_parts": 2},
            "config.rl.rollout_parts=2: 4 prompts at a time do not divide over 8 devices (data · fsdp)",
        ),
        ({"rl.micro_batches": 3}, "config.rl.prompts_per_step=8 does not divide into micro_batches=3"),
        ({"caption.micro_batches": 5}, "config.caption.batch_size=8 does not divide into micro_batches=5"),
        (
            {"fill.batch_size": 12},
            "config.fill.batch_size: 12 prompts at a time do not divide over 8 devices",
        ),
        ({"rl.micro_batches": 2}, "config.rl.prompts_per_step: 4 prompts at a time do not divide over 8"),
        ({"mesh.tensor": 3}, "config.mesh: a mesh of data=-1, fsdp=1, tensor=3 does not cover the 8 devices"),
        ({"score.heads": "men"}, "config.score.heads: 'men' is unknown, did you mean 'mean'?"),
        ({"score.query_shift": 1}, "config.score.query_shift: 1 is unknown"),
        ({"mask.granularity": "words"}, "config.mask.granularity: 'words' is unknown, did you mean 'word'?"),
        (
            {"mask.word_threshold.kind": "quantil"},
            "config.mask.word_threshold.kind: 'quantil' is unknown, did you mean 'quantile'?",
        ),
        ({"mask.context": "left"}, "config.mask.context: 'left' is unknown, did you mean 'left_only'?"),
        ({"mask.patch_share": 1.5}, "config.mask.patch_share is 1.5: a share lies between 0 and 1"),
        ({"mask.spans_per_prompt": 0}, "config.mask.spans_per_prompt is 0: a prompt hides at least 1 span"),
        (
            {"mask.patch_share": 0.5, "data.augment": "permute_boxes"},
            "config.data.augment='permute_boxes' moves patches that config.mask.patch_share hides: use one",
        ),
        ({"rl.temperature": 0.0}, "config.rl.temperature is 0.0: it must be above 0"),
        (
            {"model.vision.image_height": 32},
            "config.model.vision.image_height is 32: scenes are 64 x 64 pixels",
        ),
        (
            {"train.param_dtype": "float16"},
            "config.train.param_dtype: 'float16' is unknown, did you mean 'bfloat16'?",
        ),
        ({"rl.reward_timeout": -1.0}, "config.rl.reward_timeout is -1.0: it must be at least 0"),
        ({"train.max_skipped": 0}, "config.train.max_skipped is 0: it must be at least 1"),
        ({"train.compute_dtype": "fp32"}, "config.train.compute_dtype: 'fp32' is unknown"),
        ({"train.remat": "all"}, "config.train.remat: 'all' is unknown"),
        (
            {"train.attention": "splash"},
            "config.train.attention='splash' is a kernel for tpu, and the devices are cpu: say 'xla'",
        ),
        (
            {"train.frozen": ("vison",)},
            "config.train.frozen: 'vison' matches nothing, did you mean 'vision'?",
        ),
        ({"train.frozen": ("(vision",)}, "config.train.frozen: '(vision' is no regular expression"),
        ({"train.frozen": (".*",)}, "config.train.frozen=('.*',) leaves nothing to train"),
        ({"train.lora.rank": -1}, "config.train.lora.rank is -1: it must be at least 0"),
        ({"train.lora": LORA | {"alpha": 0.0}}, "config.train.lora.alpha is 0.0: it must be above 0"),
        ({"train.lora": LORA | {"targets": ()}}, "config.train.lora.targets is empty"),
        (
            {"train.lora": LORA | {"targets": ("decoder/query",)}},
            "config.train.lora.targets: 'decoder/query' matches nothing, did you mean 'decoder/layers/query'?",
        ),
        ({"train.lora": LORA}, "config.train.lora.rank=4 adapts weights that are given"),
    ],
)
def test_what_cannot_run_is_told_in_one_sentence(config, changes, message):
    change(config, changes)
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent.experts": "mott"}, "config.latent.experts: 'mott' is unknown, did you mean 'mot'?"),
        ({"latent.prediction": "noise"}, "config.latent.prediction: 'noise' is unknown"),
        ({"latent.pack": 3}, "config.latent: a token holds 48 x 48 pixels"),
        ({"arms": ("lvrp",)}, "config.arms: 'lvrp' is unknown, did you mean 'lvrpo'?"),
        ({"stages": ("caption",)}, "config.stages: 'caption' is unknown"),
        ({"data.kind": "records"}, "config.data.kind: 'records' is unknown, did you mean 'scenes'?"),
        (
            {"generation.sampler.window": (2, 5)},
            "config.generation.sampler: window (2, 5) must begin before it ends, within steps 0 to 3",
        ),
        ({"generation.sampler.kind": "ode"}, "config.generation.sampler: window (0, 2) asks for noise"),
        (
            {"generation.sampler.kind": "ode", "generation.sampler.window": ()},
            "config.generation.algorithm='grpo' learns from densities",
        ),
        ({"generation.algorithm": "ppo"}, "config.generation.algorithm: 'ppo' is unknown"),
        ({"generation.losses.grpo.kl": "k3"}, "config.generation.losses.grpo.kl: 'k3' is unknown"),
        (
            {"generation.losses.nft.kl": "none"},
            "config.generation.losses.nft.kl_coefficient is 0.01 and config.generation.losses.nft.kl is 'none'",
        ),
        (
            {"generation.rewards.image_text_cosine": 1.0},
            "config.generation.rewards.image_text_cosine needs an image-text encoder",
        ),
        ({"generation.encoder": "json:dump"}, "config.generation.encoder='json:dump'"),
        ({"generation.encoder": "no.such:thing"}, "config.generation.encoder='no.such:thing'"),
        (
            {"evaluate.guidance": 2.0, "drawing.text_dropout": 0.0},
            "guidance of 2.0 steers away from a prompt without text, which training never shows",
        ),
        (
            {"generation.advantage.scale": "variant"},
            "config.generation.advantage.scale: 'variant' is unknown",
        ),
        (
            {"arms": ("shuffled",), "generation.algorithm": "dpo"},
            "config.arms: 'shuffled' exchanges advantages, and config.generation.algorithm='dpo' learns from rewards",
        ),
        ({"understanding.group_size": 1}, "config.understanding.group_size is 1"),
        (
            {"generation.sampler.window": (1,)},
            "config.generation.sampler.window is (1,): give its first step",
        ),
        ({"latent.downsample": 0}, "config.latent.downsample is 0: it must be at least 1"),
        ({"evaluate.samples": 0}, "config.evaluate.samples is 0: it must be at least 1"),
        ({"generation.losses.nft.beta": 0.0}, "config.generation.losses.nft.beta is 0.0: it must be above 0"),
        ({"arms": ()}, "config.arms is empty, so there is nothing to evaluate"),
        (
            {"generation.questions_at_a_time": 12},
            "config.generation.questions_at_a_time: 12 prompts at a time",
        ),
        ({"generation.oversample": 0}, "config.generation.oversample is 0"),
        ({"generation.rollout_parts": 2}, "config.generation.rollout_parts=2: 4 prompts at a time"),
        (
            {"understanding.rollout_parts": 5},
            "config.understanding.rollout_parts=5: the 16 prompts of a step",
        ),
        ({"generation.micro_batches": 3}, "config.generation.prompts_per_step=8 does not divide"),
        ({"understanding.rewards": {"format": 0.0}}, "config.understanding.rewards: every weight is 0"),
        ({"evaluate.drawn_worlds": ("biase",)}, "config.evaluate.drawn_worlds: 'biase' is unknown"),
        (
            {"model.vision.image_width": 128},
            "config.model.vision.image_width is 128: scenes are 64 x 64 pixels",
        ),
        # 16 x 16 pixels of three colours.
        (
            {"latent.channels": 769},
            "config.latent.channels is 769: a patch of 16 x 16 pixels has no more than 768",
        ),
        (
            {"understanding.rewards": {"format": 1.0, "visual_gain": 0.5}},
            "config.understanding.rewards.visual_gain is 0.5: it reads the visual gain of an answer, which only mmrpt",
        ),
        (
            {"understanding.rewards": {"grounded_match": 1.0}},
            "config.understanding.rewards.grounded_match is 1.0",
        ),
        (
            {"pretrain.weights": {"captions": 0.0, "drawings": 0.0}},
            "config.pretrain.weights: every weight is 0, so there is nothing to imitate",
        ),
        ({"sft.weights": {"questions": 0.0}}, "config.sft.weights: every weight is 0"),
        (
            {"sft.weights": {"captions": 1.0}},
            "config.sft.weights: 'captions' is unknown, did you mean 'questions'? (questions, drawings)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_sentence(changes, message):
    config = miniature_lvrpo_config()
    check_lvrpo(config)
    change(config, changes)
    with pytest.raises(ConfigError) as error:
        check_lvrpo(config)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def fresh():
    """(make, model_of) -> a config with its shipped tokenizer, and the shapes of what it describes, by name."""

    @functools.cache
    def described(make, model_of):
        config = make()
        shapes = abstract_parameters(model_of(config, load_tokenizer(config.init.tokenizer).vocab_size))
        return config, {name: leaf.shape for name, leaf in flatten_dict(shapes, sep=".").items()}

    return described


def write_zeros(path, shapes):
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("make", "model_of", "check"),
    [
        (miniature_config, model_config, check_config),
        (miniature_lvrpo_config, unified_config, check_lvrpo),
    ],
)
def test_weights_of_another_model_are_told_by_parameter_and_shapes(fresh, make, model_of, check, tmp_path):
    config, shapes = fresh(make, model_of)
    config, path = config.copy_and_resolve_references(), tmp_path / "weights.safetensors"
    config.init.weights = write_zeros(path, shapes)
    check(config)
    name = "decoder.final_norm.scale"
    width = config.model.decoder.width
    # As of a narrower model; without a parameter; with one too many; and no weights at all.
    for stored, told in (
        (
            shapes | {name: (8,)},
            f"{name} is (8,) in {path}, and ({width},) in the model that the config describes",
        ),
        ({key: shapes[key] for key in shapes if key != name}, f"{path} lacks {name} of shape ({width},)"),
        (
            shapes | {"a.b": (2, 3)},
            f"{path} has a.b of shape (2, 3), which the config describes no place for",
        ),
        (
            shapes | {name: (8,), "a.b": (2,)},
            f"{name} is (8,) in {path}, and ({width},) in the model that the config describes (and 1 more)",
        ),
    ):
        write_zeros(path, stored)
        with pytest.raises(ConfigError) as error:
            check(config)
        assert str(error.value) == f"config.init.weights: {told}"
    path.write_text("no weights")
    with pytest.raises(
        ConfigError, match=r"^config.init.weights: .*weights.safetensors is no safetensors file"
    ):
        check(config)


def test_what_is_shipped_belongs_to_the_configs():
    check_config(mmrpt_scenes.get_config())
    check_lvrpo(lvrpo_scenes.get_config())


def test_an_autoencoder_of_other_latents_is_told_by_shapes(tmp_path):
    config = miniature_lvrpo_config()
    config.init.autoencoder = str(tmp_path / "autoencoder.safetensors")
    # Patches of 16 x 16 pixels and 16 channels are asked for.
    coder = LinearAutoencoder(np.zeros(768), np.zeros((768, 12)), np.ones(()))
    save_linear_autoencoder(config.init.autoencoder, coder)
    with pytest.raises(ConfigError) as error:
        check_lvrpo(config)
    assert str(error.value) == (
        f"config.init.autoencoder: basis is (768, 12) in {config.init.autoencoder}, and (768, 16) in the model that "
        "the config describes"
    )


@pytest.mark.parametrize(
    ("run", "make", "stages", "message"),
    [
        (
            run_mmrpt,
            miniature_config,
            ("evaluate",),
            "'evaluate' needs {}/arms/base, .*: put 'rl' before it",
        ),
        (
            run_mmrpt,
            miniature_config,
            ("caption", "mask"),
            "'mask' needs {}/scores, .*: put 'score' before it",
        ),
        (
            run_mmrpt,
            miniature_config,
            ("caption", "rl"),
            "'rl' needs {}/masks/dependency, .*: put 'mask' before it",
        ),
        (
            run_lvrpo,
            miniature_lvrpo_config,
            ("evaluate",),
            "'evaluate' needs {}/arms/base, .*: put 'align' before it",
        ),
        (
            run_lvrpo,
            miniature_lvrpo_config,
            ("align",),
            "'align' needs {}/base, .*: put 'pretrain' before it",
        ),
    ],
)
def test_a_stage_without_what_it_begins_with_is_told_before_anything_is_written(
    run, make, stages, message, tmp_path
):
    config, folder = make(), tmp_path / "run"
    config.stages = stages
    with pytest.raises(ConfigError, match=f"^config.stages: {message.format(folder)}"):
        run(config, str(folder))
    assert not folder.exists()


def test_a_file_is_no_folder_of_a_run(config, tmp_path):
    file = tmp_path / "run"
    file.touch()
    with pytest.raises(ConfigError, match="run is a file: name a folder for the run"):
        run_mmrpt(config, str(file))


def change(config, changes):
    with config.unlocked():
        for name, value in changes.items():
            *path, field = name.split(".")
            node = config
            for part in path:
                node = node[part]
            node[field] = ConfigDict(value) if isinstance(value, dict) else value
