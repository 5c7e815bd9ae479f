"""The care for the queues of a device: lost chunks are sent again, and both lanes are filled."""

import pytest
import redis

from semel.cache.claims import RedisClaims
from semel.cache.store import VectorStore
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.worker import duties as duties_module
from semel.tasks.worker.duties import QueueCare
from semel.values.text import Lane
from tests.support.fleet import Fleet


class Care(QueueCare):
    """The care of `cuda:1`, and the sweeps that it reports."""

    def __init__(self, fleet: Fleet) -> None:
        self.swept: list[Swept] = []
        sweeper = Sweeper(fleet.db, retention_s=60, max_attempts=5, lookup=VectorStore(fleet.db).lookup_on)
        dispatcher = Dispatcher(fleet.jobs, fleet.outbox, fleet.roster)  # type: ignore[arg-type]
        claims = RedisClaims(fleet.redis, ttl_s=10, owner="cuda:1@host")
        super().__init__(
            fleet.redis, sweeper, dispatcher, fleet.roster, claims, device="cuda:1", on_swept=self.swept.append
        )


@pytest.fixture
def care(fleet: Fleet) -> Care:
    fleet.join("cuda:1")
    return Care(fleet)


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message counts as lost at once."""
    monkeypatch.setattr(duties_module, "RESEND_AFTER_S", -1.0)


def test_both_lanes_of_the_device_are_filled_and_interactive_first(care: Care, fleet: Fleet) -> None:
    fleet.submit("bulk", device="cuda")
    fleet.submit("interactive", device="cuda", lane=Lane.INTERACTIVE)
    fleet.submit("elsewhere", device="cpu")
    care.once()
    assert fleet.outbox.queues == ["interactive.cuda", "bulk.cuda"]
    assert care.swept == [], "a sweep that changed nothing is not reported"


@pytest.mark.usefixtures("no_delay")
def test_a_chunk_that_left_an_empty_queue_and_runs_nowhere_is_sent_again(care: Care, fleet: Fleet) -> None:
    job = fleet.submit(device="cuda")
    care.top_up()
    care.once()
    assert [args for _, args, _ in fleet.outbox.sent] == [[[[job.id, 0]]]] * 2
    assert care.swept == [Swept(messages_lost=1)]


@pytest.mark.usefixtures("no_delay")
def test_a_chunk_whose_message_may_still_be_in_the_queue_is_not_sent_twice(care: Care, fleet: Fleet) -> None:
    fleet.submit(device="cuda")
    care.top_up()
    fleet.redis.lpush("bulk.cuda", "some message")
    care.once()
    assert len(fleet.outbox.sent) == 1


def test_a_message_gets_some_time_before_it_counts_as_lost(care: Care, fleet: Fleet) -> None:
    fleet.submit(device="cuda")
    care.top_up()
    care.once()
    assert len(fleet.outbox.sent) == 1


def test_the_chunk_of_a_dead_worker_is_sent_again(care: Care, fleet: Fleet) -> None:
    job = fleet.submit(device="cuda")
    care.top_up()
    assert fleet.jobs.lease_one(job.id, 0, owner="dead", ttl_s=-1)
    care.once()
    assert len(fleet.outbox.sent) == 2
    assert care.swept == [Swept(leases_expired=1)]


def test_without_redis_nothing_is_taken_for_lost(care: Care, fleet: Fleet) -> None:
    fleet.submit(device="cuda")
    care.top_up()
    fleet.server.connected = False
    with pytest.raises(redis.RedisError):
        care.once()
    assert care.swept == []
