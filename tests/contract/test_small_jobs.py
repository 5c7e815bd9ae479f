"""Small jobs: many in one transaction, each complete at once, and each fails alone."""

from dataclasses import replace

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import SemelError
from semel.tasks.jobs.new_job import NewJob
from semel.tasks.jobs.rows import NO_KEY, Added, NewChunk
from semel.tasks.jobs.small import SmallJob, SmallJobs
from semel.tasks.jobs.turns import Turn, Window
from semel.tasks.jobs.webhooks import WebhookStore
from semel.together import Together
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane, Outcome
from tests.support.job_rows import SPACE, states
from tests.support.jobs import Jobs
from tests.support.values import put, vectors

NEW = NewJob(space=SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
WINDOW = Window(Lane.BULK, "cpu", 8)


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=600, retention_s=600)


@pytest.fixture
def small(db: Database, store: VectorStore) -> SmallJobs:
    return SmallJobs(db, window_s=600, retention_s=600, lookup=store.lookup_on)


def of(*texts: str, new: NewJob = NEW) -> SmallJob:
    return SmallJob(new, NewChunk(0, input_keys(SPACE.fingerprint, texts), list(texts), weight=1 / 64))


def submit(small: SmallJobs, *submitted: SmallJob) -> tuple[list[Job], list[Added], list[Turn]]:
    made, added, turns = small.submit(submitted, [WINDOW])
    return made, added, turns[0]


def test_each_job_is_sealed_and_its_chunk_is_marked_as_sent(small: SmallJobs, jobs: Jobs, db: Database) -> None:
    made, added, turns = submit(small, of("a"), of("b", "c"))
    assert [(job.status, job.total, job.chunks) for job in made] == [
        (JobStatus.IN_PROGRESS, 1, 1),
        (JobStatus.IN_PROGRESS, 2, 1),
    ]
    assert [jobs.get(job.id) for job in made] == made
    assert added == [Added(0, 0), Added(0, 0)]
    assert [turn[:2] for turn in turns] == [(job.id, 0) for job in made]
    assert [states(db, job) for job in made] == [["sent"], ["sent"]]


def test_a_job_whose_texts_are_all_cached_is_completed_and_never_sent(
    small: SmallJobs, jobs: Jobs, store: VectorStore
) -> None:
    put(store, ["a", "b"], vectors(2))
    (cached, fresh), added, turns = submit(small, of("a", "b", "a"), of("a", "missing"))
    assert (cached.status, cached.counts.hit, cached.completed_at is not None) == (JobStatus.COMPLETED, 3, True)
    assert added == [Added(3, 3), Added(0, 1)]
    assert [turn.job_id for turn in turns] == [fresh.id]


def test_a_bad_text_keeps_its_place(small: SmallJobs, jobs: Jobs) -> None:
    bad = NewChunk(0, [NO_KEY], [""], {0: ItemError("invalid_text", "is empty")})
    (job,), _, turns = submit(small, SmallJob(NEW, bad))
    assert (job.status, job.counts.failed, turns) == (JobStatus.COMPLETED, 1, [])


def test_a_job_gets_its_webhook_with_its_row(small: SmallJobs, db: Database, store: VectorStore) -> None:
    put(store, ["a"], vectors(1))
    (job,), _, _ = submit(small, replace(of("a"), webhook_url="https://example.org/done"))
    (delivery,) = WebhookStore(db).take_due(limit=10)
    assert (delivery.job_id, delivery.url) == (job.id, "https://example.org/done")


def test_a_full_window_leaves_the_rest_pending(small: SmallJobs, jobs: Jobs, db: Database) -> None:
    made, _, turns = small.submit([of(f"{i}") for i in range(80)], [Window(Lane.BULK, "cpu", 1)])[0], None, None
    assert sum(states(db, job) == ["sent"] for job in made) == 64
    assert turns is None


def test_many_chunks_are_leased_and_finished_together_and_each_counts_for_its_job(small: SmallJobs, jobs: Jobs) -> None:
    made, _, turns = submit(small, of("a"), of("b"), of("c"))
    works = jobs.lease([turn[:2] for turn in turns], owner="w", ttl_s=60)
    assert [work.texts() for work in works] == [["a"], ["b"], ["c"]]
    for work, outcome in zip(works, (Outcome.COMPUTED, Outcome.FAILED, Outcome.HIT), strict=True):
        errors = {0: ItemError("invalid_vector", "NaN")} if outcome is Outcome.FAILED else {}
        assert jobs.finish_one(work, [outcome], errors, truncated=0, tokens=4)
    ended = [jobs.get(job.id) for job in made]
    assert [job.status for job in ended] == [JobStatus.COMPLETED] * 3
    assert [(job.counts.computed, job.counts.failed, job.counts.hit) for job in ended] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]


def test_a_failing_statement_of_one_writer_rolls_back_only_its_own_part(small: SmallJobs, jobs: Jobs) -> None:
    def run(items: list[SmallJob]) -> list[Job]:
        return small.submit(items, [WINDOW])[0]

    group: Together[SmallJob, Job] = Together("test", run, most=10)  # type: ignore[arg-type]
    broken = of("b", new=replace(NEW, device=None))  # type: ignore[arg-type]  # the column is not null
    futures = [group.submit(each) for each in (of("a"), broken, of("c"))]
    group.close()
    assert [futures[i].result(5).status for i in (0, 2)] == [JobStatus.IN_PROGRESS] * 2
    with pytest.raises(Exception, match=r"(?i)not[ -]null"):
        futures[1].result(5)
    assert {job.id for job in jobs.list_jobs(limit=10)} == {futures[0].result().id, futures[2].result().id}


def test_a_full_database_refuses_each_job(small: SmallJobs, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SemelError("full")

    monkeypatch.setattr(small, "_finish_hits", full)
    with pytest.raises(SemelError, match="full"):
        submit(small, of("a"))
    assert jobs.list_jobs(limit=10) == []
