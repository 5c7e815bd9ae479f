"""One API in this process for a module of tests."""

from collections.abc import Iterator

import pytest

from tests.support.service import Service, service


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API with one worker on a fake model. Tests share it: each uses texts of its own."""
    with service(tmp_path_factory.mktemp("api")) as running:
        yield running
