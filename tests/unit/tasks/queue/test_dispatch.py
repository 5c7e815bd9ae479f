"""Which chunks are sent, and when."""

from collections import Counter

import pytest
from kombu.exceptions import OperationalError

from semel.tasks.queue.dispatch import MAX_WINDOW, WINDOW_PER_WORKER, Dispatcher
from semel.tasks.queue.names import EMBED_CHUNKS
from semel.values.text import Lane, Outcome
from tests.support.fleet import OTHER, SPACE, Fleet


@pytest.fixture
def dispatcher(fleet: Fleet) -> Dispatcher:
    return Dispatcher(fleet.jobs, fleet.outbox, fleet.roster)  # type: ignore[arg-type]  # in the place of Celery


def sent_chunks(fleet: Fleet) -> list[tuple[str, int]]:
    return [(job_id, position) for _, (places,), _ in fleet.outbox.sent for job_id, position in places]


def finish(fleet: Fleet, job_id: str, position: int) -> None:
    work = fleet.jobs.lease_one(job_id, position, owner="w", ttl_s=60)
    assert work is not None
    assert fleet.jobs.finish_one(work, [Outcome.COMPUTED] * len(work.keys), {}, truncated=0, tokens=1)


def test_a_chunk_is_sent_as_its_place_and_without_its_texts(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu")
    job = fleet.submit("a secret")
    dispatcher.top_up(Lane.BULK, "cpu")
    assert fleet.outbox.sent == [(EMBED_CHUNKS, [[[job.id, 0]]], "bulk.cpu")]
    assert fleet.outbox.shown == [f"(chunk 0 of {job.id})"]


@pytest.mark.parametrize(
    ("workers", "window"), [(1, WINDOW_PER_WORKER), (3, 3 * WINDOW_PER_WORKER), (9, MAX_WINDOW), (0, WINDOW_PER_WORKER)]
)
def test_the_window_grows_with_the_workers_up_to_a_bound(
    dispatcher: Dispatcher, fleet: Fleet, workers: int, window: int
) -> None:
    for i in range(workers):
        fleet.join(f"cuda:{i}")
    fleet.join("cpu")
    fleet.submit(chunks=60, device="cuda")
    dispatcher.top_up(Lane.BULK, "cuda")
    assert len(fleet.outbox.sent) == window


def test_a_full_window_takes_no_more_until_a_chunk_is_finished(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu")
    job = fleet.submit(chunks=20)
    for _ in range(2):
        dispatcher.top_up(Lane.BULK, "cpu")
    assert sent_chunks(fleet) == [(job.id, i) for i in range(WINDOW_PER_WORKER)]
    finish(fleet, job.id, 3)
    dispatcher.top_up(Lane.BULK, "cpu")
    assert sent_chunks(fleet)[WINDOW_PER_WORKER:] == [(job.id, WINDOW_PER_WORKER)]


def test_a_queue_gets_only_the_chunks_of_its_lane_and_device(dispatcher: Dispatcher, fleet: Fleet) -> None:
    for device in ("cpu", "mps"):
        fleet.join(device)
    fleet.submit("other device", device="mps")
    fleet.submit("other lane", lane=Lane.INTERACTIVE)
    job = fleet.submit("this one")
    dispatcher.top_up(Lane.BULK, "cpu")
    assert sent_chunks(fleet) == [(job.id, 0)]


def test_a_space_that_no_live_worker_of_the_queue_serves_is_not_sent(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu", OTHER)
    fleet.join("mps", SPACE)
    fleet.submit()
    dispatcher.top_up(Lane.BULK, "cpu")
    assert fleet.outbox.sent == []
    fleet.join("cpu", OTHER, SPACE)
    dispatcher.top_up(Lane.BULK, "cpu")
    assert len(fleet.outbox.sent) == 1


def test_without_redis_the_chunks_are_sent_as_if_one_worker_lived(dispatcher: Dispatcher, fleet: Fleet) -> None:
    job = fleet.submit(chunks=10)
    fleet.server.connected = False
    dispatcher.top_up(Lane.BULK, "cpu")
    assert sent_chunks(fleet) == [(job.id, i) for i in range(WINDOW_PER_WORKER)]


def test_a_message_that_redis_does_not_accept_is_sent_again_by_a_sweep(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu")
    job = fleet.submit(chunks=2)
    fleet.outbox.error = OperationalError("connection refused")
    dispatcher.top_up(Lane.BULK, "cpu")
    fleet.outbox.error = None
    dispatcher.top_up(Lane.BULK, "cpu")
    assert fleet.outbox.sent == [], "both are marked as sent"
    fleet.jobs.sweep(empty_queues=[(Lane.BULK, "cpu")], resend_after_s=0, max_attempts=5)
    dispatcher.top_up(Lane.BULK, "cpu")
    assert sent_chunks(fleet) == [(job.id, 0), (job.id, 1)]


def drain(dispatcher: Dispatcher, fleet: Fleet, *, count: int) -> list[str]:
    """Finish this many chunks in the order in which they are sent; returns the job of each."""
    finished: list[str] = []
    dispatcher.top_up(Lane.BULK, "cpu")
    while len(finished) < count:
        job_id, position = sent_chunks(fleet)[len(finished)]
        finish(fleet, job_id, position)
        finished.append(job_id)
        dispatcher.top_up(Lane.BULK, "cpu")
    return finished


def test_small_jobs_pass_several_large_ones_that_came_before_them(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu")
    for i in range(3):
        fleet.submit(f"large {i}", chunks=30)
    drain(dispatcher, fleet, count=5)
    small = [fleet.submit(f"small {i}", chunks=2) for i in range(3)]
    fleet.outbox.sent = fleet.outbox.sent[5:]  # those that are still under way
    order = drain(dispatcher, fleet, count=20)
    assert Counter(order)[small[0].id] == Counter(order)[small[1].id] == Counter(order)[small[2].id] == 2
    assert [fleet.jobs.get(job.id).status.ended for job in small] == [True] * 3


def test_large_jobs_share_the_queue(dispatcher: Dispatcher, fleet: Fleet) -> None:
    fleet.join("cpu")
    large = [fleet.submit(f"large {i}", chunks=30) for i in range(3)]
    order = Counter(drain(dispatcher, fleet, count=30))
    assert [order[job.id] for job in large] == pytest.approx([10] * 3, abs=2)
