"""A played server, and pauses that take no time."""

import time
from collections.abc import Iterator

import pytest

from semel.client import Client
from semel.client.exchange import Exchange
from tests.support.remote import Server, client_of, exchange_with


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def exchange(server: Server) -> Iterator[Exchange]:
    made = exchange_with(server)
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with client_of(server) as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none of them takes time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made
