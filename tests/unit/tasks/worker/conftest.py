"""What the tests of the worker share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.computing import Device, device_on
from tests.support.fleet import Fleet


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> Iterator[Device]:
    """A device whose vectors go to the fleet's database."""
    with device_on(fleet.store, tmp_path) as made:
        yield made
