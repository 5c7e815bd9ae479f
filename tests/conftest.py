"""Fixtures that several tiers share: databases, a Redis, a Vulkan device."""

import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import structlog

from semel.backends.devices.find import find_devices
from semel.cache.store import VectorStore
from semel.cli.work.parts import find_redis_server, free_port
from semel.db import Database
from tests.support.databases import POSTGRES_URL, migrated, postgresql_database, sqlite_database
from tests.support.processes import answers, wait_until
from tests.support.syncs import pgvector_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background commands like this
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes that tests interrupt would inherit SIG_IGN


def missing(what: str) -> None:
    """Skip the test because a service is missing; under CI, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


_SERVICE_FIXTURES = {"redis_port", "redis_client", "semel", "chromium"}
_MODEL_FIXTURES = {"cuda", "vulkan", "backend"}


@pytest.hookimpl(tryfirst=True)  # before -m reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the fixtures it uses; `make test-fast` deselects both marks."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(item, "callspec", None)
        values = {value for value in (parameters.params.values() if parameters else ()) if isinstance(value, str)}
        if fixtures & _SERVICE_FIXTURES or "postgresql" in values:
            item.add_marker("service")
        if fixtures & _MODEL_FIXTURES and "fake" not in values:
            item.add_marker("model")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """The configuration of logs, which all tests of a process share, does not outlive the test that made it."""
    root, config, configure = logging.getLogger(), structlog.get_config(), structlog.configure
    handlers, level = root.handlers[:], root.level

    def without_cache(**options: Any) -> None:  # loggers of modules would keep what they had at their first line
        configure(**{**options, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", without_cache)
        yield
    root.handlers[:] = handlers
    root.setLevel(level)
    configure(**config)
    structlog.contextvars.clear_contextvars()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty SQLite or PostgreSQL database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'semel.db'}"
        return
    try:
        with postgresql_database() as url:
            yield url
    except psycopg.OperationalError as error:
        missing(f"PostgreSQL does not answer at {POSTGRES_URL} (SEMEL_TEST_POSTGRES_URL): {error}")


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A migrated database; the test runs on SQLite and on PostgreSQL."""
    if database_url.startswith("sqlite:"):
        migrated(Path(database_url.removeprefix("sqlite:///")))
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def store(db: Database) -> VectorStore:
    """A vector store; the test runs on SQLite and on PostgreSQL."""
    return VectorStore(db)


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database, for what does not depend on the kind of database."""
    with sqlite_database(tmp_path) as database:
        yield database


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that only the tests use."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = [find_redis_server(), "--port", str(port), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    wait_until(lambda: answers(client))
    yield port
    client.close()
    process.terminate()
    process.wait()


@pytest.fixture
def redis_client(redis_port: int) -> Iterator["redis.Redis"]:
    """A client of that Redis, which is emptied first."""
    client = redis.Redis(port=redis_port)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="session")
def cuda() -> str:
    """The name of an NVIDIA GPU. Tests that need one are skipped elsewhere, CI included: benchmarks/cuda_run.sh."""
    device = find_devices(kind="cuda")[0]
    if not device.usable:
        pytest.skip(device.why)
    return device.name


@pytest.fixture(scope="session")
def vulkan() -> None:
    """Require a Vulkan device, real or lavapipe, which `make test` provides (scripts/with-lavapipe)."""
    (device, *_) = find_devices(software=True, kind="vulkan")
    if not device.usable:
        missing(f"no Vulkan here: {device.why}; 'make test' fetches a software driver where it can")


@pytest.fixture(autouse=True)
def plain_floats() -> Iterator[None]:
    """Undo that a backend makes its thread flush denormals: Hypothesis refuses to run in such a thread."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def _pgvector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Starts a PostgreSQL with pgvector when a test first asks for it."""
    started: list[str] = []
    with ExitStack() as stack:

        def url() -> str:
            if not started:
                started.append(stack.enter_context(pgvector_server(tmp_path_factory.mktemp("pgvector"))))
            return started[0]

        yield url


@pytest.fixture
def pgvector(_pgvector: Callable[[], str]) -> Callable[[], str]:
    """Makes an empty database with pgvector, and returns its URL."""

    def empty() -> str:
        url, name = _pgvector(), f"semel_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        return url.replace("/postgres?", f"/{name}?")

    return empty
