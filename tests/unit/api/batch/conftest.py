"""One set of services in this process for a module of tests, and a runner that takes a step at a time."""

from collections.abc import Iterator

import pytest

from semel.api.batch.runner import BatchRunner
from semel.tasks.jobs.schema import batches as batch_rows
from tests.support.parts import Parts, parts


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Services with one worker on fake models. Tests share them: each uses texts of its own."""
    with parts(tmp_path_factory.mktemp("parts")) as made:
        yield made


@pytest.fixture
def runner(running: Parts) -> BatchRunner:
    """A runner that takes a step when a test says so; batches of other tests are out of its way."""
    running.worker.paused = False
    with running.services.stores.db.write() as conn:
        conn.execute(batch_rows.delete())
    return BatchRunner(running.services)
