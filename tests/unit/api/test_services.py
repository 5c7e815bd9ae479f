"""The parts of the API: what their pings report, and how they end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from structlog.testing import capture_logs

from semel.api.services import Services, assemble, build_services
from semel.errors import StorageFullError, UnavailableError
from semel.settings import Settings
from semel.tasks.fleet.card import WorkerCard


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Every part, without an application and without a worker."""
    settings = Settings(home=tmp_path_factory.mktemp("services"))
    made = assemble(settings, fakeredis.FakeRedis(), None)
    yield made
    made.close()


def with_workers(services: Services, *workers: tuple[str, str], required: tuple[str, ...] = ()) -> Services:
    """The services with a roster of exactly these workers, given as (device, state)."""
    services.fleet.redis.flushall()
    for device, state in workers:
        card = WorkerCard(id=device, device=device, host="h", pid=1, started_at=0.0, state=state)  # type: ignore[arg-type]
        services.fleet.roster.beat(card)
    settings = services.settings.model_copy(update={"required_devices": required})
    return replace(services, settings=settings)


@pytest.mark.parametrize(
    ("workers", "required"),
    [
        ([("cpu", "ready")], ()),
        ([("cpu", "loading"), ("cuda:0", "ready")], ()),
        ([("cpu", "ready"), ("cuda:0", "ready")], ("cuda", "cpu")),
    ],
)
def test_workers_that_can_compute_pass(
    services: Services, workers: list[tuple[str, str]], required: tuple[str, ...]
) -> None:
    with_workers(services, *workers, required=required).pings["workers"]()


@pytest.mark.parametrize(
    ("workers", "required", "message"),
    [
        ([], (), "no worker is alive; start one: semel worker --device cpu"),
        ([("cpu", "loading"), ("cuda:0", "loading")], (), "still loading"),
        ([("cpu", "ready")], ("cuda",), "no worker is alive for cuda; start one: semel worker --device cuda"),
        ([("cpu", "ready")], ("mps", "cuda"), "for mps, cuda; start one: semel worker --device mps"),
    ],
)
def test_workers_that_cannot_compute_are_unavailable_with_the_remedy(
    services: Services, workers: list[tuple[str, str]], required: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UnavailableError, match=message):
        with_workers(services, *workers, required=required).pings["workers"]()


def test_workers_whose_queues_are_silent_are_not_ready_and_one_that_polls_is_enough(services: Services) -> None:
    made = with_workers(services, ("cpu", "ready"), ("cuda:0", "ready"))
    cards = {card.device: card for card in made.fleet.roster.live()}
    for card in cards.values():
        made.fleet.roster.beat(replace(card, polled_s=45.0))
    with pytest.raises(UnavailableError, match="no worker has had an answer from its queues for 45 s"):
        made.pings["workers"]()
    made.fleet.roster.beat(replace(cards["cpu"], polled_s=0.4))
    made.pings["workers"]()


def test_every_part_has_a_ping(services: Services) -> None:
    pings = with_workers(services, ("cpu", "ready")).pings
    assert list(pings) == ["database", "redis", "workers", "sweeps"]
    for ping in pings.values():
        ping()


def test_a_redis_that_does_not_answer_is_unavailable(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(services.fleet.redis, "set", refuse)
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        services.fleet.ping()


@pytest.mark.parametrize(
    "answer",
    [
        redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.ReadOnlyError("You can't write against a read only replica."),
    ],
)
def test_a_redis_that_refuses_to_write_is_not_ready(
    services: Services, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise answer

    monkeypatch.setattr(services.fleet.redis, "set", refuse)
    with pytest.raises(UnavailableError, match=r"Redis refuses to write .*; give it more memory"):
        services.fleet.ping()


def test_closing_writes_the_counts_that_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = assemble(Settings(home=tmp_path), fakeredis.FakeRedis(), None)
    written: list[bool] = []
    monkeypatch.setattr(made.stores.space_use, "write", lambda: written.append(True))
    made.close()
    assert written == [True]


def test_a_full_database_does_not_keep_the_parts_from_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = assemble(Settings(home=tmp_path), fakeredis.FakeRedis(), None)
    closed: list[str] = []

    def full() -> None:
        raise StorageFullError("here")

    monkeypatch.setattr(made.stores.space_use, "write", full)
    monkeypatch.setattr(made.watch.machine, "close", lambda: closed.append("machine"))
    monkeypatch.setattr(made.fleet.redis, "close", lambda: closed.append("redis"))
    with capture_logs() as lines:
        made.close()
    assert closed == ["machine", "redis", "redis"], "the client for work, and the one for views"
    assert [line["event"] for line in lines] == ["could not write the last counts of use"]
    assert not made.fleet.outbox._courier.is_alive()


def test_the_api_starts_before_redis_does(tmp_path: Path) -> None:
    made = build_services(Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    try:
        made.stores.db.ping()
        with pytest.raises(UnavailableError, match="Redis does not answer"):
            made.fleet.ping()
    finally:
        made.close()


def test_a_database_that_does_not_answer_stops_the_start() -> None:
    with pytest.raises(UnavailableError):
        build_services(Settings(database_url="postgresql://127.0.0.1:1/nowhere"))


def test_readiness_knows_when_no_sweep_succeeds(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    services.sweeper.last_good_at -= 61
    with pytest.raises(UnavailableError, match=r"no sweep has succeeded for 6\d s"):
        services.pings["sweeps"]()
    services.sweeper.sweep()
    services.pings["sweeps"]()
