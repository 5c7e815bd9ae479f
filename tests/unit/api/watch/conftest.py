"""One set of services in this process for a module of tests."""

from collections.abc import Iterator

import pytest

from tests.support.parts import Parts, parts


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Services with one worker on fake models. Tests share them: each uses texts of its own."""
    with parts(tmp_path_factory.mktemp("parts")) as made:
        yield made
