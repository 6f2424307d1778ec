"""One miniature run, shared by all tests that look at what a run leaves behind."""

import fcntl

import pytest

from mmrpt_jax.stages.mmrpt.pipeline import run_experiment
from tests.miniature import miniature_config


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, request):
    """A folder of this test session that parallel workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(scope="session")
def config(shared_folder):
    """The miniature; programs compiled by one run are found by the next."""
    config = miniature_config()
    config.compilation_cache = str(shared_folder / "compiled")
    return config


@pytest.fixture(scope="session")
def finished_run(config, shared_folder):
    """Folder of a finished miniature of the main job; one worker runs it, the others wait."""
    folder = shared_folder / "finished"
    with open(shared_folder / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "results.json").exists():
            run_experiment(config, str(folder))
    return folder
