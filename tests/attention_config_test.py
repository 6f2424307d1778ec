import dataclasses
from types import SimpleNamespace

import pytest

from experiments.configs import mmrpt_scenes
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.trained import check_training

IN_BFLOAT16 = {"compute_dtype": "bfloat16"}


def check(platform, **changes):
    config = mmrpt_scenes.get_config()
    config.train.update(changes)
    check_training(config, model_config, [SimpleNamespace(platform=platform)])


def test_a_kernel_on_its_device_is_in_order():
    check("tpu", attention="splash")
    check("gpu", attention="cudnn", **IN_BFLOAT16)


@pytest.mark.parametrize(
    "platform, changes, message",
    [
        ("cpu", {"attention": "flash"}, "config.train.attention: 'flash' is unknown"),
        ("cpu", {"attention": "splash"}, "'splash' is a kernel for tpu, and the devices are cpu: say 'xla'"),
        (
            "tpu",
            {"attention": "cudnn", **IN_BFLOAT16},
            "'cudnn' is a kernel for gpu, and the devices are tpu",
        ),
        ("gpu", {"attention": "cudnn"}, "'cudnn' computes in bfloat16: set train.compute_dtype to it"),
    ],
)
def test_what_a_kernel_cannot_do_is_told_before_any_work(platform, changes, message):
    with pytest.raises(ConfigError, match=message):
        check(platform, **changes)


def test_what_a_model_asks_of_a_kernel_is_told_too():
    def with_whole_images(config, vocab_size):
        return dataclasses.replace(model_config(config, vocab_size), image_attention="bidirectional")

    config = mmrpt_scenes.get_config()
    config.train.attention = "splash"
    with pytest.raises(ConfigError, match="'splash' is causal, and images are not: use 'xla'"):
        check_training(config, with_whole_images, [SimpleNamespace(platform="tpu")])
