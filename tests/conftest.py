"""One miniature run, shared by all tests that look at what a run leaves behind."""

import pytest

from mmrpt_jax.stages.pipeline import run_experiment
from tests.miniature import miniature_config


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Folder of a finished miniature of the main job."""
    folder = tmp_path_factory.mktemp("finished")
    run_experiment(miniature_config(), str(folder))
    return folder
