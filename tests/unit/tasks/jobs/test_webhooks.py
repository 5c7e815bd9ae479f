"""Webhooks: when a delivery is due, who holds it, and when semel gives up."""

import time

import pytest
from sqlalchemy import select

from semel.db import Database
from semel.tasks.jobs.schema import webhooks as webhook_table
from semel.tasks.jobs.webhooks import DELAYS_S, WebhookStore
from tests.support.job_rows import BROKEN, change, create
from tests.support.jobs import Jobs

URL = "https://example.org/hook"


@pytest.fixture
def webhooks(db: Database) -> WebhookStore:
    return WebhookStore(db)


def ended(jobs: Jobs, webhooks: WebhookStore, url: str = URL) -> str:
    """The id of an ended job with a webhook."""
    job = create(jobs)
    webhooks.add(job.id, url)
    jobs.fail(job.id, BROKEN)
    return job.id


def make_due(db: Database) -> None:
    change(db, webhook_table, due_at=time.time() - 1)


def test_a_job_without_a_webhook_has_no_delivery(jobs: Jobs, webhooks: WebhookStore) -> None:
    jobs.fail(create(jobs).id, BROKEN)
    assert webhooks.take_due(limit=9) == []


def test_a_delivery_is_due_when_its_job_has_ended(jobs: Jobs, webhooks: WebhookStore) -> None:
    job = create(jobs)
    webhooks.add(job.id, URL)
    assert webhooks.take_due(limit=9) == []
    jobs.cancel(job.id)
    (delivery,) = webhooks.take_due(limit=9)
    assert (delivery.job_id, delivery.url, delivery.attempts) == (job.id, URL, 0)


def test_no_more_deliveries_are_taken_than_can_be_made(jobs: Jobs, webhooks: WebhookStore) -> None:
    made = {ended(jobs, webhooks) for _ in range(5)}
    first, second = webhooks.take_due(limit=3), webhooks.take_due(limit=3)
    assert (len(first), len(second)) == (3, 2)
    assert {delivery.job_id for delivery in first + second} == made


def test_a_delivery_of_a_process_that_died_is_taken_again_after_a_minute(
    jobs: Jobs, webhooks: WebhookStore, db: Database
) -> None:
    ended(jobs, webhooks)
    (taken,) = webhooks.take_due(limit=9)
    assert taken.held_until == pytest.approx(time.time() + 60, abs=5)
    assert webhooks.take_due(limit=9) == []
    make_due(db)
    (again,) = webhooks.take_due(limit=9)
    assert again.attempts == 0, "no attempt was recorded"


def test_a_delivered_webhook_is_never_due_again(jobs: Jobs, webhooks: WebhookStore, db: Database) -> None:
    ended(jobs, webhooks)
    (delivery,) = webhooks.take_due(limit=9)
    webhooks.delivered(delivery)
    with db.read() as conn:
        row = conn.execute(select(webhook_table)).one()
    assert (row.attempts, row.due_at, row.last_error) == (1, None, None)


def test_a_failed_attempt_is_repeated_after_its_pause(jobs: Jobs, webhooks: WebhookStore, db: Database) -> None:
    ended(jobs, webhooks)
    (delivery,) = webhooks.take_due(limit=9)
    assert webhooks.failed(delivery, "status 500") == DELAYS_S[0]
    with db.read() as conn:
        row = conn.execute(select(webhook_table)).one()
    assert row.due_at == pytest.approx(time.time() + DELAYS_S[0], abs=3)
    assert (row.attempts, row.last_error) == (1, "status 500")


def test_the_last_attempt_has_no_successor(jobs: Jobs, webhooks: WebhookStore, db: Database) -> None:
    ended(jobs, webhooks)
    pauses = []
    for _ in range(len(DELAYS_S) + 1):
        make_due(db)
        (delivery,) = webhooks.take_due(limit=9)
        pauses.append(webhooks.failed(delivery, "status 500"))
    assert pauses == [*DELAYS_S, None]
    assert webhooks.take_due(limit=9) == []


def test_an_error_that_no_attempt_can_remove_ends_the_attempts(jobs: Jobs, webhooks: WebhookStore) -> None:
    ended(jobs, webhooks)
    (delivery,) = webhooks.take_due(limit=9)
    assert webhooks.failed(delivery, "the address is not public", for_good=True) is None
    assert webhooks.take_due(limit=9) == []


def test_a_process_that_lost_its_delivery_settles_nothing(jobs: Jobs, webhooks: WebhookStore, db: Database) -> None:
    ended(jobs, webhooks)
    (late,) = webhooks.take_due(limit=9)
    make_due(db)
    (current,) = webhooks.take_due(limit=9)
    webhooks.delivered(late)
    with db.read() as conn:
        row = conn.execute(select(webhook_table)).one()
    assert (row.attempts, row.due_at) == (0, current.held_until)
