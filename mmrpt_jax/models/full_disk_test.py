import errno

import pytest

from mmrpt_jax.models.full_disk import naming_a_full_disk


@pytest.mark.parametrize(
    "met",
    [
        ValueError("RESOURCE_EXHAUSTED: No space left on device [28]"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_whoever_met_it_names_the_path(met):
    with pytest.raises(OSError, match="No space left") as caught, naming_a_full_disk("/there"):
        raise met
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/there")


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match=r"^a shape$"), naming_a_full_disk("/there"):
        raise ValueError("a shape")
