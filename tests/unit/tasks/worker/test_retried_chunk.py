"""A chunk of a job that is retried: only the texts that failed for a passing reason run again."""

from semel.cache.keys import input_keys
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.tasks.worker.chunk import ChunkRunner
from semel.values.text import ItemError, Lane, Outcome
from tests.support.computing import Device
from tests.support.fleet import Fleet

LOST = ItemError("device_lost", "the device is gone")


def test_what_was_settled_keeps_its_place_and_the_rest_is_computed(fleet: Fleet, device: Device) -> None:
    space, messages = device.space(), list[Message]()
    job = fleet.jobs.add(space, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    keys = [*input_keys(space.fingerprint, ["done", "lost", "lost as well"]), NO_KEY]
    refused = {3: ItemError("invalid_text", "is empty")}
    new = NewChunk(0, keys, ["done", "lost", "lost as well", ""], refused)
    fleet.jobs.add_chunks(job, [new], lookup=fleet.store.lookup_on)
    fleet.jobs.seal(job.id)
    work = fleet.jobs.lease_one(job.id, 0, owner="died", ttl_s=60)
    assert work is not None
    before = [Outcome.COMPUTED, Outcome.FAILED, Outcome.FAILED, Outcome.FAILED]
    fleet.jobs.finish_one(work, before, {1: LOST, 2: LOST, **refused}, truncated=0, tokens=1)
    retry(fleet.db, job.id, window_s=60)

    ChunkRunner(
        fleet.jobs,
        fleet.jobs,
        fleet.store,
        device.embedder,
        device.models,
        owner="w",
        lease_s=60,
        max_attempts=2,
        refuse=lambda *_: False,
        record=messages.append,
    ).run([(job.id, 0)])

    (chunk,) = fleet.jobs.results(job.id)
    assert [outcome.value for outcome in chunk.outcomes] == ["computed", "computed", "computed", "failed"]
    assert chunk.errors == refused
    assert device.engine.stats.texts == 2, "the settled text is not computed again"
    assert [message.outcomes for message in messages] == [{Outcome.COMPUTED: 2}]
    done = fleet.jobs.get(job.id)
    assert (done.status.value, done.counts.computed, done.counts.failed) == ("completed", 3, 1)
