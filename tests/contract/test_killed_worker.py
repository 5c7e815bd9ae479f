"""A worker that is killed between any two steps of what it does for many small jobs and requests together.

Each step is followed by the end of the worker: nothing after it happens, as after `kill -9`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from semel.cache.claims import RedisClaims
from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import BackendError
from semel.tasks.jobs.new_job import NewJob
from semel.tasks.jobs.rows import NewChunk
from semel.tasks.jobs.small import SmallJob, SmallJobs
from semel.tasks.jobs.turns import Turn, Window
from semel.tasks.queue.doorbell import Doorbell, release, states
from semel.tasks.queue.message import Answer, Request, RequestMessage
from semel.tasks.worker import replies as replies_module
from semel.tasks.worker.chunk import ChunkRunner
from semel.tasks.worker.device_loss import DeviceLoss
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.replies import Replies
from semel.values.job import JobStatus
from semel.values.text import Lane
from tests.support.computing import Device, KilledError, chunk_runner, device_on
from tests.support.jobs import Jobs

TEXTS = [f"text number {i}" for i in range(12)]

WINDOW = Window(Lane.BULK, "cpu", 8)


def killing(owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
    """Let the process end right after this step."""
    original = getattr(owner, name)

    def run_and_die(*args: Any, **options: Any) -> None:
        original(*args, **options)
        raise KilledError

    patch.setattr(owner, name, run_and_die)


@pytest.fixture
def client() -> "fakeredis.FakeRedis":
    return fakeredis.FakeRedis()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def device(store: VectorStore, tmp_path: Path, journal: Path, client: "fakeredis.FakeRedis") -> Iterator[Device]:
    source = f"fake:?dim=8&journal={journal}"
    claims = RedisClaims(client, ttl_s=0.2, owner="w")
    with device_on(store, tmp_path, source, claims=claims, max_batch_tokens=4096) as made:
        yield made


def computed(journal: Path) -> int:
    """How many texts have reached the device."""
    samples = 2  # of the health check
    return len(journal.read_text().splitlines()) - samples if journal.exists() else 0


# Small jobs


def runner(jobs: Jobs, store: VectorStore, device: Device, *, owner: str, lease_s: float) -> ChunkRunner:
    return chunk_runner(jobs, store, device, owner=owner, lease_s=lease_s, max_attempts=5, window=lambda: WINDOW)


STEPS: dict[str, Callable[[Jobs, VectorStore, Device], tuple[Any, str]]] = {
    "lease": lambda jobs, _store, _device: (jobs, "lease"),
    "look-up": lambda _jobs, store, _device: (store, "lookup"),
    "claim": lambda _jobs, _store, device: (device.embedder._claims, "take"),
    "computation": lambda _jobs, _store, device: (device.engine, "submit"),
    "store": lambda _jobs, store, _device: (store, "put_many"),
    "release": lambda _jobs, _store, device: (device.embedder._claims, "_release"),
    "finish": lambda jobs, _store, _device: (jobs, "finish"),
}


@pytest.mark.parametrize("step", STEPS)
def test_no_text_of_a_small_job_is_lost_or_computed_twice_more_than_once(
    db: Database, store: VectorStore, device: Device, journal: Path, step: str
) -> None:
    jobs = Jobs(db, window_s=600, retention_s=600)
    small = SmallJobs(db, window_s=600, retention_s=600, lookup=store.lookup_on)
    space = device.space()
    new = NewJob(space=space, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    made, _, (turns,) = small.submit(
        [SmallJob(new, NewChunk(0, input_keys(space.fingerprint, [t]), [t], weight=1 / 64)) for t in TEXTS], [WINDOW]
    )
    places = [turn[:2] for turn in turns]
    device.model  # noqa: B018  # loads it, so that the health check is in the journal
    with pytest.MonkeyPatch.context() as patch:
        killing(*STEPS[step](jobs, store, device), patch)
        with pytest.raises(KilledError):
            runner(jobs, store, device, owner="killed", lease_s=-1).run(places)
    assert recover(jobs, store, device) <= 2
    ended = [jobs.get(job.id) for job in made]
    assert [(job.status, job.counts.done, job.counts.failed) for job in ended] == [(JobStatus.COMPLETED, 1, 0)] * 12
    assert store.lookup(input_keys(space.fingerprint, TEXTS)).all_present
    assert len(TEXTS) <= computed(journal) <= 2 * len(TEXTS), "only the batch in hand is computed again"
    if step in ("store", "release", "finish"):
        assert computed(journal) == len(TEXTS), "what was stored is never computed again"


def recover(jobs: Jobs, store: VectorStore, device: Device) -> int:
    """Sweep and run what is sent, as the next worker does, until nothing is left; returns the number of rounds."""
    for rounds in range(5):
        jobs.sweep(empty_queues=[(Lane.BULK, "cpu")], resend_after_s=-1, max_attempts=5)
        turns: list[Turn] = jobs.take_for_dispatch(WINDOW)
        if not turns:
            return rounds
        runner(jobs, store, device, owner="next", lease_s=60).run([turn[:2] for turn in turns])
    raise AssertionError("work is left")


# Requests


REQUEST_STEPS: dict[str, Callable[[VectorStore, Device, HeldRequests], tuple[Any, str]]] = {
    "take": lambda _store, _device, held: (held, "take"),
    "claim": lambda _store, device, _held: (device.embedder._claims, "take"),
    "computation": lambda _store, device, _held: (device.engine, "submit"),
    "store": lambda store, _device, _held: (store, "put_many"),
    "answer": lambda _store, _device, _held: (replies_module, "ring"),
}


@pytest.mark.parametrize("emptied", [False, True], ids=["", "and Redis is emptied"])
@pytest.mark.parametrize("step", REQUEST_STEPS)
def test_every_request_is_answered_once_and_its_text_is_not_computed_twice_more_than_once(
    store: VectorStore, device: Device, client: "fakeredis.FakeRedis", journal: Path, step: str, *, emptied: bool
) -> None:
    answers: dict[str, Answer] = {}
    bell = Doorbell(client, lambda request_id, answer: answers.setdefault(request_id, answer) and None)
    requests = [Request(f"r{i}", [text], sent_at=1.0, expires_at=2e9 * 2) for i, text in enumerate(TEXTS)]
    space = device.space()
    message = RequestMessage(bell.name, "m", "", space.fingerprint.hex(), requests)
    device.model  # noqa: B018
    replies, held = worker(client, device, "killed")
    with pytest.MonkeyPatch.context() as patch:
        killing(*REQUEST_STEPS[step](store, device, held), patch)
        with pytest.raises(KilledError):
            replies.embed(message)
    if emptied:
        client.flushall()
    known = states(client, [request.id for request in requests])
    left = [request for request, state in zip(requests, known, strict=True) if state.answer is None]
    release(client, [request.id for request in left])  # as the care does for the requests of a dead worker
    for request in left:
        again = RequestMessage(bell.name, "m", "", space.fingerprint.hex(), [request])
        worker(client, device, "next")[0].embed(again)
        worker(client, device, "copy")[0].embed(again)  # a message that is delivered twice
    final = states(client, [request.id for request in requests])
    assert all(state.answer is not None and not state.answer.errors for state in final)
    assert store.lookup(input_keys(space.fingerprint, TEXTS)).all_present
    assert len(TEXTS) <= computed(journal) <= 2 * len(TEXTS)
    if step in ("store", "answer"):
        assert computed(journal) == len(TEXTS)
    bell.close()


def worker(client: "fakeredis.FakeRedis", device: Device, worker_id: str) -> tuple[Replies, HeldRequests]:
    def never(*_: object) -> bool:
        raise BackendError("not expected")

    held = HeldRequests(client, worker_id=worker_id)
    replies = Replies(
        client,
        device.models,
        device.embedder,
        DeviceLoss(),
        held,
        never,  # type: ignore[arg-type]
        refuse=never,
        record=lambda _: None,
    )
    return replies, held
