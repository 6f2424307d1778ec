"""One miniature run of each method, shared by all tests that look at what a run leaves behind."""

import fcntl

import pytest

from mmrpt_jax.stages.lvrpo.pipeline import run_experiment as run_lvrpo
from mmrpt_jax.stages.mmrpt.pipeline import run_experiment
from tests.miniature import miniature_config, miniature_lvrpo_config


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
def lvrpo_config(shared_folder):
    """The miniature of the other method."""
    config = miniature_lvrpo_config()
    config.compilation_cache = str(shared_folder / "compiled")
    return config


@pytest.fixture(scope="session")
def finished_run(config, shared_folder):
    """Folder of a finished miniature of the main job."""
    return _run_once(run_experiment, config, shared_folder / "finished")


@pytest.fixture(scope="session")
def finished_lvrpo_run(lvrpo_config, shared_folder):
    """Folder of a finished miniature of the other method."""
    return _run_once(run_lvrpo, lvrpo_config, shared_folder / "finished_lvrpo")


def _run_once(run, config, folder):
    """One worker runs it, the others wait."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "results.json").exists():
            run(config, str(folder))
    return folder
