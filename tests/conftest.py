"""One miniature run, shared by all tests that look at what a run leaves behind."""

import pytest

from mmrpt_jax.stages.pipeline import run_experiment
from tests.miniature import miniature_config


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """The miniature; programs compiled by one run are found by the next."""
    config = miniature_config()
    config.compilation_cache = str(tmp_path_factory.mktemp("compiled"))
    return config


@pytest.fixture(scope="session")
def finished_run(config, tmp_path_factory):
    """Folder of a finished miniature of the main job."""
    folder = tmp_path_factory.mktemp("finished")
    run_experiment(config, str(folder))
    return folder
