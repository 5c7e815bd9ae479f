"""A worker process from its start to its end, with fakeredis and a broker in memory."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.utils.dispatch import Signal

from semel.backends.hanging import Hang
from semel.cache.keys import input_keys
from semel.errors import BackendError, FingerprintError, ModelLoadError, UnavailableError
from semel.settings import Settings
from semel.tasks.queue.doorbell import states
from semel.tasks.queue.message import Request, RequestMessage
from semel.tasks.queue.names import EMBED_CHUNKS, EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker import consuming as consuming_module
from semel.tasks.worker import device_loss as device_loss_module
from semel.tasks.worker import models as models_module
from semel.tasks.worker import worker as worker_module
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.worker import Worker
from semel.values.device import DeviceInfo
from semel.values.job import JobStatus
from semel.values.model import ModelEntry, Space
from semel.values.text import Lane
from tests.support.fleet import Fleet
from tests.support.processes import wait_until

Consume = Callable[[Worker], None]


@pytest.fixture(autouse=True)
def this_machine(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the fleet's Redis and a CPU, found without a framework; nothing ends the process of the tests."""
    monkeypatch.setattr(worker_module, "connect_redis", lambda _url, name: fleet.redis)
    monkeypatch.setattr(worker_module, "describe", lambda name: DeviceInfo(name, usable=True, why="8 cores"))
    monkeypatch.setattr(models_module, "choose_device_for", lambda _settings, name: (name, "test"))
    monkeypatch.setattr(Settings, "all_models", property(lambda self: self.models))
    monkeypatch.setattr(device_loss_module.os, "kill", lambda _pid, _number: None)
    for signal in ("setup_logging", "task_prerun"):
        monkeypatch.setattr(consuming_module, signal, Signal())


class Workers:
    """Makes workers on the CPU, whose engines end with the test."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._made: list[Worker] = []

    def new(self, source: str = "fake:?dim=8", **more: ModelEntry) -> Worker:
        models = {"m": ModelEntry(source), **more}
        settings = Settings(home=self._home, redis_url="memory://", models=models, default_model="m", max_attempts=2)
        self._made.append(Worker(settings, device="cpu"))
        return self._made[-1]

    def close(self) -> None:
        for worker in self._made:
            worker._engine.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    made.close()


def run(worker: Worker, consume: Consume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it, with `consume` instead of Celery's loop."""
    monkeypatch.setattr(worker_module, "consume", lambda *_, **__: consume(worker))
    worker.run()


def nothing(_worker: Worker) -> None:
    """A signal ends the loop at once."""


def space_of(worker: Worker, model: str = "m") -> Space:
    return worker._models.spaces(model)[""]


def pending(fleet: Fleet) -> int:
    """Chunks that have not been sent."""
    return len(fleet.jobs.dispatch(lane=Lane.BULK, device="cpu", window=1000))


def test_without_redis_a_worker_waits_until_it_answers(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.server.connected = False
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        fleet.server.connected = len(waits) == 3

    monkeypatch.setattr("semel.redis_client.time.sleep", sleep)
    workers.new()
    assert len(waits) == 3


@pytest.mark.parametrize("error", [redis.AuthenticationError("password"), redis.ResponseError("no such database")])
def test_a_worker_that_redis_refuses_does_not_start(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(fleet.redis, "ping", refuse)
    with pytest.raises(UnavailableError, match=str(error)):
        workers.new()


def test_a_worker_is_published_and_ready_before_it_takes_messages_and_gone_afterwards(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, seen = workers.new(), list[object]()

    def look(worker: Worker) -> None:
        worker._presence.beat()
        (card,) = fleet.roster.live()
        seen.extend((card.state, card.models, card.loaded, fleet.catalog.space("m") == space_of(worker)))
        with pytest.raises(FingerprintError):
            fleet.catalog.publish([replace(space_of(worker), fingerprint=b"x" * 32)], device="mps")

    run(worker, look, monkeypatch)
    assert seen == ["ready", ["m"], ["m"], True]
    assert fleet.roster.live() == []
    fleet.catalog.publish([replace(space_of(worker), fingerprint=b"x" * 32)], device="mps")  # the name is free
    with pytest.raises(BackendError):
        worker._engine.submit(worker._models.loaded()[0].backend, ["text"])  # the engine is closed


@pytest.mark.parametrize("step", ["verify", "available"])
def test_a_worker_is_on_the_roster_while_it_tests_its_device_and_looks_for_its_models(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    worker, seen = workers.new(), list[object]()

    def look(*_: object) -> dict[str, dict[str, Space]]:
        wait_until(lambda: len(fleet.roster.live()) == 1)
        (card,) = fleet.roster.live()
        seen.extend((card.id, card.state, card.models, card.spaces, card.loaded))
        return {"m": {"": space_of(worker)}}

    monkeypatch.setattr(LoadedModels, "all_fake", False)
    monkeypatch.setattr(worker_module, "verify", look if step == "verify" else lambda _device: None)
    if step == "available":
        monkeypatch.setattr(worker._models, "available", look)
    run(worker, nothing, monkeypatch)
    assert seen == [worker._id, "loading", [], [], []]
    assert fleet.roster.live() == []


def test_a_worker_that_fails_while_it_looks_for_its_models_is_shown_as_failed_and_does_not_come_back(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()

    def fail(*_: object) -> None:
        wait_until(lambda: len(fleet.roster.live()) == 1)
        raise ModelLoadError("the disk is full")

    monkeypatch.setattr(worker._models, "available", fail)
    with pytest.raises(ModelLoadError):
        run(worker, nothing, monkeypatch)
    worker._presence.beat()  # one that was under way
    assert fleet.roster.live() == []
    assert [card.why for card in fleet.roster.failed()] == ["the disk is full"]


def test_a_worker_whose_models_are_all_missing_ends_with_the_reason_on_the_roster(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModels, "available", lambda _self, _names: {})
    with pytest.raises(ModelLoadError, match="no configured model can be served here"):
        run(workers.new(), nothing, monkeypatch)
    assert [card.state for card in fleet.roster.failed()] == ["failed"]


def test_a_worker_with_other_weights_under_the_name_of_a_live_one_refuses_to_start(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()
    fleet.catalog.publish([replace(space_of(worker), fingerprint=b"x" * 32)], device="mps")
    with pytest.raises(FingerprintError):
        run(worker, nothing, monkeypatch)
    assert len(fleet.roster.failed()) == 1


def test_a_worker_that_works_takes_back_the_failure_of_its_predecessor(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.new()._presence.report_failed(BackendError("wrong numbers"))
    assert len(fleet.roster.failed()) == 1
    run(workers.new(), nothing, monkeypatch)
    assert fleet.roster.failed() == []


def fail_to_load(*_: object) -> None:
    raise ModelLoadError("no memory")


def test_a_default_model_that_cannot_be_loaded_is_withdrawn_and_its_jobs_move(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, offered = workers.new(other=ModelEntry("fake:?dim=4")), list[str]()
    job = fleet.submit(space=space_of(worker))
    fleet.join("mps", space_of(worker))
    monkeypatch.setattr(worker._models, "get", fail_to_load)
    run(worker, lambda worker: offered.extend(worker._offers.models), monkeypatch)
    assert offered == ["other"]
    assert fleet.jobs.get(job.id).device == "mps"


def test_an_only_model_that_cannot_be_loaded_ends_the_worker(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()
    monkeypatch.setattr(worker._models, "get", fail_to_load)
    with pytest.raises(ModelLoadError, match="no memory"):
        run(worker, nothing, monkeypatch)
    assert fleet.roster.live() == []
    assert [card.why for card in fleet.roster.failed()] == ["no memory"]


def test_without_redis_a_model_is_withdrawn_and_its_jobs_stay(fleet: Fleet, workers: Workers) -> None:
    worker = workers.new(other=ModelEntry("fake:?dim=4"))
    worker._offers.serve(worker._models.available(["m", "other"]))
    job = fleet.submit(space=space_of(worker))
    fleet.server.connected = False
    assert not worker._refuse("m", space_of(worker).fingerprint, "no memory")
    assert worker._offers.models == ["other"]
    assert fleet.jobs.get(job.id).device == "cpu"


def test_a_finished_chunk_makes_room_for_the_next_ones(fleet: Fleet, workers: Workers) -> None:
    worker = workers.new()
    job = fleet.submit(space=space_of(worker), chunks=12)
    worker.embed_chunks([(job.id, 0)])
    assert fleet.jobs.get(job.id).counts.computed == 1
    assert pending(fleet) == 12 - 1 - 8


def test_a_lost_device_stops_the_worker_which_takes_no_more_chunks(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new("fake:?dim=8&dead_after=1")
    job = fleet.submit(space=space_of(worker), chunks=3)
    with pytest.raises(BackendError):
        run(worker, lambda worker: worker.embed_chunks([(job.id, 0)]), monkeypatch)
    (card,) = fleet.roster.failed()
    assert card.state == "failed"
    assert fleet.jobs.get(job.id).status is JobStatus.IN_PROGRESS


class Exited(BaseException):
    """The process ended."""


def test_a_hanging_device_returns_the_chunks_that_are_not_in_its_batch(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_code: int) -> None:
        raise Exited

    worker = workers.new()
    job = fleet.submit(space=space_of(worker), chunks=2)
    places = [(job.id, 0), (job.id, 1)]
    for place in places:
        assert fleet.jobs.lease_one(*place, owner=worker._id, ttl_s=60)
    monkeypatch.setattr(worker._runner, "in_hand", lambda: places)
    monkeypatch.setattr(worker._engine, "in_hand", lambda: {frozenset(places[:1]), None})
    monkeypatch.setattr(worker._engine, "hangs", lambda **_: Hang("a batch", 99.0))
    monkeypatch.setattr(device_loss_module, "faulthandler", SimpleNamespace(dump_traceback=lambda **_: None))
    monkeypatch.setattr(device_loss_module, "threading", SimpleNamespace(Timer=lambda *_: SimpleNamespace(start=int)))
    monkeypatch.setattr(device_loss_module, "os", SimpleNamespace(_exit=end))
    with pytest.raises(Exited):
        worker._hang.look()
    returned = fleet.jobs.lease_one(job.id, 1, owner="another", ttl_s=60)
    assert returned is not None
    assert returned.attempts == 1, "the attempt was not its fault"
    assert fleet.jobs.lease_one(job.id, 0, owner="another", ttl_s=60) is None
    assert ["hangs" in card.why for card in fleet.roster.failed()] == [True]


def test_leases_of_the_chunks_in_hand_are_renewed(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()
    job = fleet.submit(space=space_of(worker), chunks=2)
    for position in (0, 1):
        assert fleet.jobs.lease_one(job.id, position, owner=worker._id, ttl_s=-1)
    monkeypatch.setattr(worker._runner, "in_hand", lambda: [(job.id, 0)])
    worker._renew_leases()
    assert fleet.jobs.lease_one(job.id, 0, owner="another", ttl_s=60) is None
    assert fleet.jobs.lease_one(job.id, 1, owner="another", ttl_s=60)


class Loop:
    """Stands in for Celery's worker: runs these messages and ends."""

    def __init__(self, worker: Worker, messages: list[tuple[str, list[Any]]], *, exitcode: int | None = None) -> None:
        self._worker = worker
        self._messages = messages
        self.exitcode = exitcode
        self.on_start: Callable[[], object] = lambda: None

    def __call__(self, **_: object) -> "Loop":
        return self

    def start(self) -> None:
        self.on_start()
        for task, args in self._messages:
            self._worker._app.tasks[task].apply(args=args, throw=True)


def test_chunks_and_requests_from_the_queue_are_done(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()
    space = space_of(worker)
    job = fleet.submit(space=space)
    request = Request("a" * 32, ["asked"], sent_at=1.0, expires_at=time.time() + 60)
    asked = RequestMessage("bell", "m", "", space.fingerprint.hex(), [request])
    reading = replace(asked, requests=[replace(request, id="b" * 32)], reading="count")
    messages = [
        (EMBED_CHUNKS, [[[job.id, 0]]]),
        (EMBED_TEXTS, [asked.to_message()]),
        (READ_TEXTS, [reading.to_message()]),
    ]
    monkeypatch.setattr(worker._app, "Worker", Loop(worker, messages))
    worker.run()
    assert fleet.jobs.get(job.id).status is JobStatus.COMPLETED
    assert fleet.store.lookup(input_keys(space.fingerprint, ["asked"])).all_present
    assert all(state.answer for state in states(fleet.redis, ["a" * 32, "b" * 32]))
    counted = worker._metrics.registry.get_sample_value("semel_messages_total", {"device": "cpu"})
    assert counted == 2, "reading is no work of the device"


def test_a_loop_that_ends_with_an_error_is_started_again(
    fleet: Fleet, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.new()
    failing, working = Loop(worker, [], exitcode=1), Loop(worker, [])
    loops, seen = iter([failing, failing, working]), []
    monkeypatch.setattr(consuming_module, "_PAUSE_S", 0.0)
    monkeypatch.setattr(worker._app, "Worker", lambda **options: next(loops)(**options))
    working.on_start = lambda: seen.extend(fleet.roster.live())
    worker.run()
    assert len(seen) == 1, "the worker stays on the roster"
    assert next(loops, None) is None


def test_a_loop_that_a_signal_ends_is_not_started_again(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = workers.new()
    loops = iter([Loop(worker, [], exitcode=1)])
    monkeypatch.setattr(consuming_module.state, "should_stop", 0)
    monkeypatch.setattr(worker._app, "Worker", lambda **options: next(loops)(**options))
    worker.run()


@pytest.mark.parametrize(("info", "count"), [({"redelivered": True}, 1), ({"redelivered": False}, 0), (None, 0)])
def test_a_message_that_comes_again_is_counted(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, info: dict[str, bool] | None, count: int
) -> None:
    worker = workers.new()
    task = SimpleNamespace(request=SimpleNamespace(delivery_info=info))
    loop = Loop(worker, [])
    loop.on_start = lambda: consuming_module.task_prerun.send(sender=None, task=task)
    monkeypatch.setattr(worker._app, "Worker", loop)
    worker.run()
    assert worker._metrics.registry.get_sample_value("semel_redeliveries_total", {"device": "cpu"}) == count
