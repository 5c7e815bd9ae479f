"""The HTTP exchange with a semel server: requests, retries, and answers with errors as semel's exceptions."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from semel.client.steps import Call, Pause, Request
from semel.error_codes import revive
from semel.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    SemelError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)
from semel.values.address import is_loopback

T = TypeVar("T")

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 30.0

_BY_STATUS: dict[int, type[SemelError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
    504: TimedOutError,
}
"""The class of an error without one of semel's codes, which a proxy sends in place of the server."""


class Exchange:
    """Sends requests to one server, and waits for the answers. Thread-safe.

    Args:
        url: the server's address.
        api_key: sent with every request; empty for none.
        timeout_s: for one answer.
        transport: replaces the network, for example in tests.
    """

    def __init__(
        self, url: str, *, api_key: str, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url
        with _usable_environment():
            self._http = httpx.Client(**_http_options(url, api_key, timeout_s), transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Take the steps of a call. Raises what it raises, and SemelError as `json`."""
        try:
            step = next(call)
            while True:
                try:
                    answer = self._take(step)
                except SemelError as error:
                    step = call.throw(error)
                else:
                    step = call.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, step: Request | Pause) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        send = partial(self._send, step)
        return Retrying(**_RETRIES)(send) if step.repeatable else send()

    def _send(self, request: Request) -> Any:
        with translated(self.url):
            return _content(request, self._http.request(request.method, request.path, **request.options))

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer to a request, which is retried while the server is overloaded or unavailable.

        Args:
            method: HTTP method.
            path: path on the server.
            options: the other arguments of `httpx.Client.request`.

        Raises:
            SemelError: the class that belongs to the server's error code; see `semel.errors`.
        """
        return self._take(Request(method, path, options))

    def once(self, method: str, path: str, **options: Any) -> Any:
        """Like `json`, but without retries, for bodies that are streamed. None for an answer without a body."""
        return self._take(Request(method, path, options, repeatable=False))

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer whose body the block reads. Raises what `json` raises; there are no retries."""
        with translated(self.url), self._http.stream(method, path, **options) as response:
            if response.is_error:
                response.read()
            check(response)
            yield response


class AsyncExchange:
    """As `Exchange`, for an event loop.

    Args:
        url, api_key, timeout_s, transport: as of `Exchange`.
    """

    def __init__(
        self, url: str, *, api_key: str, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url
        with _usable_environment():
            self._http = httpx.AsyncClient(**_http_options(url, api_key, timeout_s), transport=transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        """Take the steps of a call. Raises as `Exchange.run`."""
        try:
            step = next(call)
            while True:
                try:
                    answer = await self._take(step)
                except SemelError as error:
                    step = call.throw(error)
                else:
                    step = call.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _take(self, step: Request | Pause) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        send = partial(self._send, step)
        return await AsyncRetrying(**_RETRIES)(send) if step.repeatable else await send()

    async def _send(self, request: Request) -> Any:
        options = dict(request.options)
        if "content" in options:
            options["content"] = _as_async(options["content"])
        with translated(self.url):
            return _content(request, await self._http.request(request.method, request.path, **options))

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body the block reads. Raises as `Exchange.stream`."""
        with translated(self.url):
            async with self._http.stream(method, path, **options) as response:
                if response.is_error:
                    await response.aread()
                check(response)
                yield response


def _http_options(url: str, api_key: str, timeout_s: float) -> dict[str, Any]:
    """The arguments of both of httpx's clients. This machine is reached directly, whatever proxies there are."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    here = is_loopback(urlsplit(url).hostname or "")
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=5.0),
        "trust_env": not here,
    }


@contextmanager
def _usable_environment() -> Iterator[None]:
    """Raise BadInputError if httpx cannot use the proxies that the environment names."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise BadInputError(
            f"the proxies in the environment cannot be used ({error}): check ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and "
            "NO_PROXY; for a SOCKS proxy, run pip install 'httpx[socks]'"
        ) from None


def _content(request: Request, response: httpx.Response) -> Any:
    """What a call receives as the answer to its request. Raises SemelError for an answer with an error."""
    if not request.any_status:
        check(response)
    if request.raw:
        return response.content
    return response.json() if response.content else None


async def _as_async(parts: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The parts of a body, for httpx's asynchronous client."""
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            yield part
        return
    for part in parts:
        yield part
        await asyncio.sleep(0)  # encoding a large corpus must not stop the event loop for long


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise httpx's errors as semel's."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOutError(f"{url} did not answer in time ({type(error).__name__})") from error
    except httpx.UnsupportedProtocol:
        raise BadInputError(f"{url!r} is not an http:// or https:// address") from None
    except httpx.TransportError as error:
        raise UnavailableError(
            f"no semel server answers at {url} ({error}); start one with 'semel up', or set SEMEL_URL"
        ) from error


def _pause_s(attempt: RetryCallState) -> float:
    """The pause that the server asks for, otherwise one that doubles; the randomness spreads many clients."""
    error = attempt.outcome.exception() if attempt.outcome else None
    requested_s = error.retry_after_s if isinstance(error, OverloadedError | UnavailableError) else None
    own_s = 0.5 * 2 ** (attempt.attempt_number - 1) * random.uniform(0.75, 1.25)  # noqa: S311  # no secret
    return float(min(_LONGEST_PAUSE_S, own_s if requested_s is None else max(0.0, requested_s)))


_RETRIES: dict[str, Any] = {
    "stop": stop_after_attempt(_ATTEMPTS),
    "wait": _pause_s,
    "retry": retry_if_exception_type((UnavailableError, OverloadedError)),
    "reraise": True,
}
"""The arguments of both of tenacity's classes."""


def check(response: httpx.Response) -> None:
    """Raise the error in an answer: the class comes from its code, or from the status if semel has no such code."""
    if not response.is_error:
        return
    retry_after_s = _retry_after_s(response)
    try:
        body = response.json()
        error = body.get("error", body)  # Cohere's shape, on /v1/rerank, has the message outside
        raise revive(str(error["code"]), str(error["message"]), retry_after_s=retry_after_s)
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = _BY_STATUS.get(response.status_code)
        if kind is None:
            kind = BadInputError if response.status_code < 500 else SemelError
        message = f"HTTP status {response.status_code}: {response.text[:200] or 'an empty answer'}"
        raise kind.revived(message, retry_after_s=retry_after_s) from None


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds from the header; None if there is no header, or it is a date."""
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
