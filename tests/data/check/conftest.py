"""What the tests of checks share."""

import pytest

from tests.data.check.faults import make_photos


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")
