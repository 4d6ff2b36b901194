"""Fixtures of runs in several processes."""

from pathlib import Path

import pytest

from tests.training.conftest import QUICK


@pytest.fixture
def words(photos: Path) -> list[str]:
    """The words of a command that trains for a few seconds."""
    settings = QUICK | {"epochs": 3, "micro_batch": 4, "lr": 3e-3, "mixup": 0.2}
    return [str(photos), *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]
