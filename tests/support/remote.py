"""A fake semel server: it gives prepared answers and records the requests."""

from collections.abc import Callable
from typing import Any

import httpx
from fastapi.testclient import TestClient

from semel.client import Client
from semel.client.exchange import Exchange

URL = "http://semel.test"


class Server:
    """Gives its prepared answers in turn, and the last one from then on.

    Attributes:
        requests: the requests received, read to their end.
    """

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self._answers: list[Callable[[], httpx.Response]] = []

    def answers(self, status: int = 200, **response: Any) -> None:
        """Prepare an answer; `response` are the arguments of `httpx.Response`."""
        self._answers.append(lambda: httpx.Response(status, **response))

    def fails(self, error: Exception) -> None:
        """Prepare a failure of the network."""

        def fail() -> httpx.Response:
            raise error

        self._answers.append(fail)

    def refuses(self, status: int, code: str, message: str, **headers: str) -> None:
        """Prepare an error as semel's native routes send it."""
        error = {"message": message, "type": "any", "code": code, "param": None}
        self.answers(status, json={"error": error}, headers={name.replace("_", "-"): v for name, v in headers.items()})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, as `httpx.MockTransport` requires."""
        request.read()
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer()


def exchange_with(handler: Callable[[httpx.Request], httpx.Response], *, api_key: str = "key") -> Exchange:
    """An exchange with a function in place of the network."""
    return Exchange(URL, api_key=api_key, timeout_s=5.0, transport=httpx.MockTransport(handler))


def client_of(handler: Callable[[httpx.Request], httpx.Response]) -> Client:
    """A client with a function in place of the network."""
    client = Client(URL)
    client._exchange.close()
    client._exchange = exchange_with(handler)
    return client


def job(status: str = "completed", *, total: int = 3, dimensions: int = 4, **changed: Any) -> dict[str, Any]:
    """A job as the server sends it."""
    counts = {"total": total, "hit": 0, "computed": total, "coalesced": 0, "failed": 0, "truncated": 0, "tokens": 9}
    return {
        "id": "job_1", "object": "job", "status": status, "model": "fake", "dimensions": dimensions, "device": "cpu",
        "why": "the only one", "counts": counts, "error": None, "metadata": {}, "created_at": 1.0,
        "completed_at": None, "a_field_of_a_newer_server": 1, **changed,
    }  # fmt: skip


def client_of_api(http: TestClient) -> Client:
    """A client of the API in this process."""

    def forward(request: httpx.Request) -> httpx.Response:
        answer = http.request(
            request.method, request.url.raw_path.decode(), content=request.content, headers=dict(request.headers)
        )
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    client = client_of(forward)
    client._exchange._http.headers["host"] = "127.0.0.1"
    return client
