"""`semel` as a command in this process: the result of one run, fake models, and a client without a network."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from fastapi.testclient import TestClient
from typing_extensions import override

from semel.client.exchange import Exchange

FAKE_MODELS = """
default_model = "fake"
[models.fake]
source = "fake:?dim=16&max_tokens=20&fail_on=poison"
[models.prompted]
source = "fake:?dim=16"
prompts = { query = "find ", document = "text " }
[models.reranker]
source = "fake:?fail_on=poison&max_tokens=20"
kind = "cross-encoder"
"""
"""The models of `tests.support.service`, as a semel.toml."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and all that it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The message of the only line that begins with "error:"."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")


Cli: TypeAlias = Callable[..., Ended]
"""Runs one command line, given as its words."""


class AppTransport(httpx.BaseTransport):
    """Sends requests to an application in this process.

    Args:
        http: calls the application.
    """

    def __init__(self, http: TestClient) -> None:
        self._http = http

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = dict(request.headers)
        answer = self._http.request(request.method, str(request.url), headers=headers, content=request.read())
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)


def exchange_over(transport: httpx.BaseTransport) -> type[Exchange]:
    """An `Exchange` whose requests go to `transport`, whatever the URL of its client."""

    class OverTransport(Exchange):
        def __init__(self, url: str, *, api_key: str, timeout_s: float) -> None:
            super().__init__(url, api_key=api_key, timeout_s=timeout_s)
            self._http.close()
            self._http = httpx.Client(base_url="http://127.0.0.1", transport=transport)

    return OverTransport
