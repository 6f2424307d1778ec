import importlib.util

import pytest

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.topology.slices import open_slice

INSTALLED = importlib.util.find_spec("libtpu") is not None


def test_an_unknown_generation():
    with pytest.raises(ConfigError, match="begins with its generation, v5e, v5p, v6e, tpu7x"):
        open_slice("v7x:2x2x1")


@pytest.mark.skipif(INSTALLED, reason="the compiler is installed")
def test_no_compiler():
    with pytest.raises(ConfigError, match=r"pip install 'mmrpt_jax\[tpu\]'"):
        open_slice("v5e:2x2")


@pytest.mark.skipif(not INSTALLED, reason="needs the extra tpu")
@pytest.mark.parametrize("name", ["v5e:3x5", "v5e:all", "v5e"])
def test_an_unknown_slice(name):
    with pytest.raises(ConfigError, match="there is no such slice"):
        open_slice(name)


@pytest.mark.skipif(not INSTALLED, reason="needs the extra tpu")
@pytest.mark.parametrize(
    "name, devices", [("v5e:2x4", 8), ("v5p:2x2x2", 8), ("v6e:2x4", 8), ("tpu7x:2x2x1", 8)]
)
def test_slices(name, devices):
    assert len(open_slice(name).devices) == devices
