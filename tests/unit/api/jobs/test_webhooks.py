"""Webhooks: which addresses they may go to, how they are signed, and what becomes of a delivery."""

import base64
import http.server
import ipaddress
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
from pydantic import SecretStr
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook

from semel.api.jobs import webhooks as module
from semel.api.jobs.submission import new_job
from semel.api.jobs.webhooks import WebhookSender, check_webhook, is_public, signature
from semel.api.jobs.wire import JobRequest
from semel.errors import BadInputError, StorageFullError
from semel.settings import Settings
from semel.tasks.jobs.schema import jobs as job_rows
from semel.tasks.jobs.schema import webhooks as webhook_rows
from semel.tasks.jobs.webhooks import DELAYS_S
from semel.values.job import Job
from tests.support.parts import Parts, parts

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


# Addresses


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every host have these addresses."""
    found = [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, 443)) for a in addresses]
    look_up = SimpleNamespace(getaddrinfo=lambda *_, **__: found, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr(module, "socket", look_up)


def settings(**changed: Any) -> Settings:
    return Settings(**{"webhook_secret": SecretStr(SECRET), **changed})


def test_a_public_host_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "8.8.8.8", "2606:4700::1")
    check_webhook(settings(), "https://example.org/hook")


def test_one_private_address_among_several_refuses_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(BadInputError, match=r"'example.org' resolves to the private address 10.0.0.1; to allow it"):
        check_webhook(settings(), "https://example.org/hook")


def test_an_address_with_a_zone_is_judged_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "fe80::1%eth0")
    with pytest.raises(BadInputError, match="private address fe80::1;"):
        check_webhook(settings(), "https://example.org/")


def test_private_addresses_are_accepted_when_the_server_allows_them() -> None:
    check_webhook(settings(webhook_allow_private=True), "http://127.0.0.1:9/hook")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org", "must be http:// or https://"),
        ("no url", "must be http"),
        ("http://", "must be http"),
        ("https:///path", "must be http"),
        ("http://user:password@example.org/", "without a password"),
        ("http://user@example.org/", "without a password"),
        ("http://exa\x00mple.org/", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://" + "x" * 70 + ".org", "has no address"),
    ],
)
def test_what_is_no_address_of_a_receiver_is_refused(url: str, message: str) -> None:
    with pytest.raises(BadInputError, match=f"webhook_url.*{message}"):
        check_webhook(settings(), url)


def test_a_host_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(module, "socket", SimpleNamespace(getaddrinfo=unknown, SOCK_STREAM=socket.SOCK_STREAM))
    with pytest.raises(BadInputError, match=r"the host 'nope.invalid' has no address: .*not known"):
        check_webhook(settings(), "http://nope.invalid/")


# Secrets and signatures


@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(bytes(n)).decode() for n in (24, 64)])
def test_a_secret_has_24_to_64_bytes(secret: str) -> None:
    check_webhook(settings(webhook_secret=SecretStr(secret), webhook_allow_private=True), "http://127.0.0.1/")


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_no base64", *(base64.b64encode(bytes(n)).decode() for n in (9, 65))]
)
def test_a_secret_that_is_none_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(BadInputError, match="must be 'whsec_' and 24 to 64 bytes in base64") as refused:
        check_webhook(settings(webhook_secret=SecretStr(secret)), "http://127.0.0.1/")
    assert secret.removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"


def test_a_server_without_a_secret_cannot_send_webhooks() -> None:
    with pytest.raises(BadInputError, match="cannot send webhooks: SEMEL_WEBHOOK_SECRET is not set"):
        check_webhook(settings(webhook_secret=SecretStr("")), "http://127.0.0.1/")


def test_a_signature_is_that_of_standard_webhooks() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks, libraries/python
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# Deliveries


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
    resolve(monkeypatch, "127.0.0.1")
    post = module._status_of

    async def watched(url: httpx.URL, *args: Any, **options: Any) -> int:
        called.append(f"{url.host} for {options['server']}")
        return await post(url, *args, **options)

    monkeypatch.setattr(module, "_status_of", watched)
    deliver(sender)
    assert called == ["127.0.0.1 for receiver.example"]
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
