"""The steps of a call: the requests that it sends, and its pauses."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A request, to be answered with the JSON of the server's answer.

    Attributes:
        options: the other arguments of `httpx.Client.request`.
        repeatable: it is sent again while the server is overloaded or unavailable. A streamed body is not.
        raw: answer with the bytes of the body instead.
        any_status: answer whatever the status is.
    """

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    raw: bool = False
    any_status: bool = False


@dataclass(frozen=True)
class Pause:
    """Seconds to wait."""

    seconds: float


Call: TypeAlias = Generator[Request | Pause, Any, T]
"""The steps of a call that returns a T."""
