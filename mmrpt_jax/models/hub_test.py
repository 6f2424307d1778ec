import pytest

from mmrpt_jax.models import hub
from mmrpt_jax.models.hub import resolve_checkpoint


@pytest.fixture
def downloads(monkeypatch):
    """Keeps what would have been downloaded, as (repository, options)."""
    asked = []

    def download(repository, **options):
        asked.append((repository, options))
        return "/cache"

    monkeypatch.setattr(hub, "snapshot_download", download)
    return asked


def test_a_directory_is_itself(tmp_path, downloads):
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    with pytest.raises(
        FileNotFoundError, match="no directory owner/name: give a local checkpoint, or hub:owner/name"
    ):
        resolve_checkpoint("owner/name")
    assert not downloads


def test_only_the_explicit_form_downloads(downloads):
    assert str(resolve_checkpoint("hub:owner/name")) == "/cache"
    [(repository, options)] = downloads
    assert repository == "owner/name"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in options["allow_patterns"])
    for wrong in ("hub:", "hub:name", "hub:a/b/c"):
        with pytest.raises(ValueError, match="write hub:owner/name"):
            resolve_checkpoint(wrong)
    assert len(downloads) == 1
