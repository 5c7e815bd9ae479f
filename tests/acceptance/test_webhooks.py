"""Webhooks are signed as Standard Webhooks specifies, repeated when refused, and never sent to private addresses."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.support.processes import Processes, processes, wait_until

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """An HTTP server that answers with the statuses it is given, then with 200."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.location = ""
        self.endless = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("content-length", str(1 << 40) if receiver.endless else "0")
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.end_headers()
                with suppress(OSError):
                    while receiver.endless:
                        self.wfile.write(bytes(1 << 16))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder: Path = tmp_path_factory.mktemp("hooked")
    with processes(folder, SEMEL_WEBHOOK_SECRET=SECRET, SEMEL_WEBHOOK_ALLOW_PRIVATE="true") as running:
        yield running


def submit(semel: Processes, url: str, **params: str) -> httpx.Response:
    body = {"model": "fake", "input": ["one", "two"], "webhook_url": url}
    return httpx.post(f"{semel.url}/v1/jobs", json=body, params=params)


def test_the_end_of_a_job_is_sent_and_signed(hooked: Processes, receiver: Receiver) -> None:
    job_id = submit(hooked, receiver.url).json()["id"]
    wait_until(lambda: len(receiver.got) == 1)
    headers, body = receiver.got[0]
    event = Webhook(SECRET).verify(body, headers)
    assert event["type"] == "job.completed"
    assert event["data"]["id"] == job_id
    assert event["data"]["counts"]["done"] == 2
    assert headers["host"] == httpx.URL(receiver.url).netloc.decode()
    assert event == json.loads(body)


def test_a_refused_webhook_is_sent_again_with_the_same_id(hooked: Processes, receiver: Receiver) -> None:
    receiver.statuses = [500]
    submit(hooked, receiver.url)
    wait_until(lambda: len(receiver.got) == 2, timeout_s=20)
    (first, _), (second, body) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) >= int(first["webhook-timestamp"]) + 5
    Webhook(SECRET).verify(body, second)


def test_a_receiver_that_answers_410_gets_no_second_attempt(hooked: Processes, receiver: Receiver) -> None:
    receiver.statuses = [410]
    submit(hooked, receiver.url)
    wait_until(lambda: len(receiver.got) == 1)
    with pytest.raises(AssertionError):
        wait_until(lambda: len(receiver.got) > 1, timeout_s=7)


def test_an_endless_answer_delays_no_other_receiver(hooked: Processes, receiver: Receiver) -> None:
    endless = Receiver()
    endless.endless = True
    submit(hooked, endless.url)
    wait_until(lambda: len(endless.got) == 1)
    submit(hooked, receiver.url)
    wait_until(lambda: len(receiver.got) == 1, timeout_s=12)  # the endless answer may take 15 s
    endless.server.shutdown()
    endless.server.server_close()


def test_a_redirect_is_not_followed(hooked: Processes, receiver: Receiver) -> None:
    other = Receiver()
    receiver.statuses, receiver.location = [307], other.url
    submit(hooked, receiver.url)
    wait_until(lambda: len(receiver.got) == 2, timeout_s=20)
    other.server.shutdown()
    other.server.server_close()
    assert other.got == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org", "must be http"),
        ("http://user:password@localhost/", "without a password"),
        ("http://no-such-host.invalid/", "has no address"),
        ("no url", "must be http"),
    ],
)
def test_an_invalid_webhook_url_is_refused(hooked: Processes, url: str, message: str) -> None:
    answer = submit(hooked, url)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_private_addresses_are_refused(tmp_path: Path, receiver: Receiver) -> None:
    with processes(tmp_path, SEMEL_WEBHOOK_SECRET=SECRET) as running:
        for url in (
            receiver.url,
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://0.0.0.0",
        ):
            answer = submit(running, url)
            assert answer.status_code == 400, url
            assert "private address" in answer.json()["error"]["message"]
    assert receiver.got == []


def test_a_server_without_a_secret_refuses_webhooks(semel: Processes, receiver: Receiver) -> None:
    answer = submit(semel, receiver.url)
    assert (answer.status_code, "SEMEL_WEBHOOK_SECRET is not set" in answer.text) == (400, True)
