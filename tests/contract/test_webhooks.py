"""What the store of webhooks promises, on SQLite and on PostgreSQL."""

import time

import pytest
from sqlalchemy import update

from semel.db import Database
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.schema import jobs as job_rows
from semel.tasks.jobs.schema import webhooks
from semel.tasks.jobs.webhooks import DELAYS_S, WebhookStore
from semel.values.text import ItemError, Lane
from tests.support.jobs import Jobs
from tests.support.values import space


@pytest.fixture
def store(db: Database) -> WebhookStore:
    return WebhookStore(db)


@pytest.fixture
def ended(db: Database, store: WebhookStore) -> str:
    """A job that has ended and has a webhook."""
    jobs = Jobs(db, window_s=60, retention_s=60)
    job = jobs.add(space(), lane=Lane.BULK, device="cpu", why="test", truncate=True)
    store.add(job.id, "https://example.org/hook")
    assert store.take_due(limit=9) == [], "not before the job has ended"
    jobs.fail(job.id, ItemError("storage_full", "no room"))
    return job.id


def make_due(db: Database) -> None:
    with db.write() as conn:
        conn.execute(update(webhooks).values(due_at=time.time() - 1))


def test_a_delivery_is_held_by_one_process(store: WebhookStore, ended: str) -> None:
    (delivery,) = store.take_due(limit=9)
    assert (delivery.job_id, delivery.attempts) == (ended, 0)
    assert store.take_due(limit=9) == []
    store.delivered(delivery)
    assert store.take_due(limit=9) == []


def test_a_failed_delivery_is_repeated_later_and_finally_given_up(
    db: Database, store: WebhookStore, ended: str
) -> None:
    for attempt, delay_s in enumerate([*DELAYS_S, None]):
        (delivery,) = store.take_due(limit=9)
        assert delivery.attempts == attempt
        assert store.failed(delivery, "status 500") == delay_s
        assert store.take_due(limit=9) == []
        if delay_s is not None:
            make_due(db)


def test_a_delivery_from_before_a_retry_settles_nothing(db: Database, store: WebhookStore, ended: str) -> None:
    with db.write() as conn:  # as if its upload had been complete, with something left to run
        conn.execute(update(job_rows).values(in_progress_at=time.time()))
    (late,) = store.take_due(limit=9)
    with db.write() as conn:  # what `retry` does to the row
        conn.execute(update(webhooks).values(attempts=0, due_at=time.time()))
    store.delivered(late)
    (again,) = store.take_due(limit=9)
    assert again.attempts == 0
    retry(db, ended, window_s=60)  # nothing can run again, so the job stays ended
    store.delivered(again)
    assert store.take_due(limit=9) == []
