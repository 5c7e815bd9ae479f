"""What the tests of fleet, queue and worker share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Clock, Fleet, fleet_in


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """No worker, no job, an empty Redis."""
    with fleet_in(tmp_path) as empty:
        yield empty


@pytest.fixture
def clock() -> Clock:
    """To be put in the place of the module `time` of a module under test."""
    return Clock()
