"""Deliveries of webhooks, to a server in this process."""

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook

from semel.api.jobs import webhooks as module
from semel.api.jobs.submission import new_job
from semel.api.jobs.webhooks import WebhookSender
from semel.api.jobs.wire import JobRequest
from semel.errors import StorageFullError
from semel.tasks.jobs.schema import jobs as job_rows
from semel.tasks.jobs.schema import webhooks as webhook_rows
from semel.tasks.jobs.webhooks import DELAYS_S
from semel.values.job import Job
from tests.support.parts import Parts, parts

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """An HTTP server in this process.

    Attributes:
        got: headers and body of every request.
        statuses: the next answers; 200 after them.
        location: where a redirect points to.
    """

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.location = ""
        self.hang = threading.Event()
        self.hang.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.hang.wait(5)
                with suppress(OSError):
                    self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                    self.send_header("content-length", "0")
                    if receiver.location:
                        self.send_header("location", receiver.location)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Services that may send webhooks to this machine."""
    with parts(tmp_path_factory.mktemp("parts"), webhook_secret=SECRET, webhook_allow_private=True) as made:
        yield made


@pytest.fixture
def sender(running: Parts) -> Iterator[WebhookSender]:
    """A sender that looks for deliveries when a test says so."""
    stores = running.services.stores
    with stores.db.write() as conn:
        conn.execute(webhook_rows.delete())
    made = WebhookSender(running.services.settings, stores.jobs, stores.webhooks)
    yield made
    made._pool.shutdown()


def ended_job(running: Parts, url: str) -> Job:
    with new_job(running.services, JobRequest(input=[], webhook_url=url)) as ingest:
        ingest.add("ends with a webhook")
        return ingest.finish()


def deliver(sender: WebhookSender) -> None:
    """Look for what is due, and wait until it is delivered or has failed."""
    sender._once()
    wait(sender._under_way, timeout=10)


def row(running: Parts, job: Job) -> Any:
    with running.services.stores.db.read() as conn:
        return conn.execute(select(webhook_rows).where(webhook_rows.c.job_id == job.id)).one()


def due_now(running: Parts) -> None:
    with running.services.stores.db.write() as conn:
        conn.execute(update(webhook_rows).where(webhook_rows.c.due_at.is_not(None)).values(due_at=0.0))


def test_the_end_of_a_job_is_delivered_and_signed(running: Parts, sender: WebhookSender, receiver: Receiver) -> None:
    job = ended_job(running, receiver.url)
    deliver(sender)
    ((headers, body),) = receiver.got
    event = Webhook(SECRET).verify(body, headers)
    assert (event["type"], event["data"]["id"]) == ("job.completed", job.id)
    assert event["data"]["counts"]["total"] == 1
    assert event["timestamp"].endswith("+00:00")
    assert (headers["content-type"], headers["user-agent"]) == ("application/json", "semel")
    assert (row(running, job).due_at, row(running, job).attempts, row(running, job).last_error) == (None, 1, None)


def test_the_receiver_is_called_by_its_name_at_the_address_that_was_checked(
    running: Parts, sender: WebhookSender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, called = receiver.server.server_port, list[str]()
    ended_job(running, receiver.url.replace("localhost", "127.0.0.1"))
    with running.services.stores.db.write() as conn:
        conn.execute(update(webhook_rows).values(url=f"http://receiver.example:{port}/hook"))
    found = [(socket.AF_INET, 1, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1", "127.0.0.1")]
    look_up = SimpleNamespace(getaddrinfo=lambda *_, **__: found, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr(module, "socket", look_up)
    post = module._status_of

    async def watched(url: httpx.URL, addresses: list[str], *rest: Any) -> int:
        called.append(f"{', '.join(addresses)} for {url.host}")
        return await post(url, addresses, *rest)

    monkeypatch.setattr(module, "_status_of", watched)
    deliver(sender)
    assert called == ["127.0.0.2, 127.0.0.1 for receiver.example"], "nobody listens at the first one"
    assert receiver.got[0][0]["host"] == f"receiver.example:{port}"


def test_a_host_that_points_to_a_private_address_by_now_is_not_called(
    running: Parts, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, stores = ended_job(running, receiver.url), running.services.stores
    strict = running.services.settings.model_copy(update={"webhook_allow_private": False})
    sender = WebhookSender(strict, stores.jobs, stores.webhooks)
    deliver(sender)
    sender._pool.shutdown()
    assert receiver.got == []
    assert "private address" in row(running, job).last_error


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_a_refused_delivery_is_due_again_with_the_same_id(
    running: Parts, sender: WebhookSender, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status]
    job = ended_job(running, receiver.url)
    deliver(sender)
    assert row(running, job).last_error == f"HTTP status {status}"
    deliver(sender)
    assert len(receiver.got) == 1, "not before its time"
    due_now(running)
    deliver(sender)
    (first, _), (second, body) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    Webhook(SECRET).verify(body, second)
    assert (row(running, job).due_at, row(running, job).attempts) == (None, 2)


def test_the_pauses_grow_until_a_delivery_is_given_up(
    running: Parts, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 20
    job = ended_job(running, receiver.url)
    for _ in range(20):
        deliver(sender)
        due_now(running)
    assert len(receiver.got) == len(DELAYS_S) + 1
    assert row(running, job).due_at is None


def test_a_receiver_that_is_gone_is_left_alone(running: Parts, sender: WebhookSender, receiver: Receiver) -> None:
    receiver.statuses = [410]
    job = ended_job(running, receiver.url)
    deliver(sender)
    assert (row(running, job).due_at, row(running, job).last_error) == (None, "HTTP status 410")


def test_a_redirect_is_not_followed(running: Parts, sender: WebhookSender, receiver: Receiver) -> None:
    other = Receiver()
    receiver.statuses, receiver.location = [307], other.url
    ended_job(running, receiver.url)
    deliver(sender)
    other.close()
    assert other.got == []


def test_a_receiver_that_refuses_the_connection_is_tried_again(running: Parts, sender: WebhookSender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = ended_job(running, f"http://127.0.0.1:{free.getsockname()[1]}/")
    deliver(sender)
    assert row(running, job).last_error.startswith("ConnectError")
    assert row(running, job).due_at is not None


def test_a_receiver_that_does_not_answer_is_tried_again(
    running: Parts, sender: WebhookSender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)
    receiver.hang.clear()
    job = ended_job(running, receiver.url)
    deliver(sender)
    receiver.hang.set()
    assert "Timeout" in row(running, job).last_error


def test_a_job_that_was_deleted_or_started_again_is_not_delivered(
    running: Parts, sender: WebhookSender, receiver: Receiver
) -> None:
    stores = running.services.stores
    deleted, again = ended_job(running, receiver.url), ended_job(running, receiver.url)
    due = stores.webhooks.take_due(limit=9)
    stores.jobs.delete(deleted.id)
    with stores.db.write() as conn:
        conn.execute(update(job_rows).where(job_rows.c.id == again.id).values(status="in_progress"))
    for delivery in due:
        sender._deliver(delivery)
    assert len(due) == 2
    assert receiver.got == []


def test_a_failed_job_is_delivered_as_failed(running: Parts, sender: WebhookSender, receiver: Receiver) -> None:
    with pytest.raises(StorageFullError), new_job(running.services, JobRequest(input=[], webhook_url=receiver.url)):
        raise StorageFullError("here")
    deliver(sender)
    event = json.loads(receiver.got[0][1])
    assert (event["type"], event["data"]["error"]["code"]) == ("job.failed", "storage_full")


def test_an_unforeseen_error_is_logged_and_ends_no_thread(
    running: Parts, sender: WebhookSender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError

    job = ended_job(running, receiver.url)
    monkeypatch.setattr(sender._webhooks, "delivered", broken)
    deliver(sender)
    monkeypatch.undo()
    assert row(running, job).attempts == 0
    due_now(running)
    deliver(sender)
    assert row(running, job).attempts == 1


def test_four_deliveries_are_made_at_once_and_no_more(
    running: Parts, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.hang.clear()
    for _ in range(6):
        ended_job(running, receiver.url)
    sender._once()
    assert len(sender._under_way) == 4
    sender._once()
    assert len(sender._under_way) == 4
    receiver.hang.set()
    wait(sender._under_way, timeout=10)
    deliver(sender)
    assert len(receiver.got) == 6


def test_a_sender_starts_and_stops(running: Parts, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    stores, arrived = running.services.stores, threading.Event()
    sender = WebhookSender(running.services.settings, stores.jobs, stores.webhooks)
    monkeypatch.setattr(sender._webhooks, "delivered", lambda _: arrived.set())
    ended_job(running, receiver.url)
    sender.start()
    assert arrived.wait(5)
    sender.stop()
    assert len(receiver.got) == 1
