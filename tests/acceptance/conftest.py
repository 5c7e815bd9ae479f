"""A stack of processes for the whole tier; tests that kill parts make their own."""

from collections.abc import Iterator

import pytest

from tests.support.processes import Processes, processes


@pytest.fixture(scope="session")
def semel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Redis, API and a worker on a fake model that knows 20 words and fails on `poison`."""
    with processes(tmp_path_factory.mktemp("stack"), model="fail_on=poison&max_tokens=20") as running:
        yield running
