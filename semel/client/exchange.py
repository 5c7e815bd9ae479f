"""The HTTP exchange with a semel server: requests, retries, and answers with errors as semel's exceptions."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

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
    revive,
)

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
    """Sends requests to one server. Thread-safe.

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
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, **request: Any) -> Any:
        """The JSON answer to a request, which is retried while the server is overloaded or unavailable.

        Args:
            method: HTTP method.
            path: path on the server.
            request: the other arguments of `httpx.Client.request`.

        Raises:
            SemelError: the class that belongs to the server's error code; see `semel.errors`.
        """
        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_pause_s,
            retry=retry_if_exception_type((UnavailableError, OverloadedError)),
            reraise=True,
        )
        return retrying(self.once, method, path, **request)

    def once(self, method: str, path: str, **request: Any) -> Any:
        """Like `json`, but without retries, for bodies that are streamed. None for an answer without a body."""
        with self._translated():
            response = self._http.request(method, path, **request)
            _check(response)
            return response.json() if response.content else None

    def answer(self, method: str, path: str) -> Any:
        """The JSON answer, whatever its status. Raises UnavailableError if no server answers."""
        with self._translated():
            return self._http.request(method, path).json()

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """An answer whose body the block reads. Raises what `json` raises; there are no retries."""
        with self._translated(), self._http.stream(method, path, **request) as response:
            if response.is_error:
                response.read()
            _check(response)
            yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise TimedOutError(f"{self.url} did not answer in time ({type(error).__name__})") from error
        except httpx.UnsupportedProtocol:
            raise BadInputError(f"{self.url!r} is not an http:// or https:// address") from None
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no semel server answers at {self.url} ({error}); start one with 'semel up', or set SEMEL_URL"
            ) from error


def _pause_s(attempt: RetryCallState) -> float:
    """The pause that the server asks for, otherwise one that doubles; the randomness spreads many clients."""
    error = attempt.outcome.exception() if attempt.outcome else None
    requested_s = error.retry_after_s if isinstance(error, OverloadedError | UnavailableError) else None
    own_s = 0.5 * 2 ** (attempt.attempt_number - 1) * random.uniform(0.75, 1.25)  # noqa: S311  # no secret
    return float(min(_LONGEST_PAUSE_S, own_s if requested_s is None else max(0.0, requested_s)))


def _check(response: httpx.Response) -> None:
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
