"""Traces: one from the HTTP request over the message in the queue to the device's batch and the store.

`SEMEL_OTLP_ENDPOINT` says who collects them. Without it `semel.otlp` is not imported, and a span does nothing, in less
than half a microsecond. Attributes are ids, names and numbers, never texts.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from semel.errors import BadInputError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from semel.otlp import Traces

Attribute: TypeAlias = str | int | float | bool

Caller: TypeAlias = object
"""A span that others may refer to, from another thread too."""


class Span(Protocol):
    """What is being timed."""

    def annotate(self, **attributes: Attribute) -> None:
        """Add what is known by now."""


class _NoSpan:
    def annotate(self, **attributes: Attribute) -> None:
        pass


NO_SPAN: AbstractContextManager[Span] = nullcontext(_NoSpan())

_traces: "Traces | None" = None


def configure_traces(endpoint: str, *, service: str) -> None:
    """Send this process's spans, and those of Celery in it, to a collector; an empty endpoint traces nothing.

    Args:
        service: how the collector names this process.

    Raises:
        BadInputError: the extra with OpenTelemetry is not installed.
    """
    global _traces
    if not endpoint:
        return
    try:
        from semel.otlp import Traces
    except ModuleNotFoundError as missing:
        raise BadInputError(
            f"SEMEL_OTLP_ENDPOINT is set, and for traces the package {missing.name!r} is missing: "
            "pip install 'semel[otel]', or unset it"
        ) from None
    _traces = Traces(endpoint, service=service)


def close_traces() -> None:
    """Send what has not been sent, and trace no more."""
    global _traces
    traces, _traces = _traces, None
    if traces is not None:
        traces.close()


def is_on() -> bool:
    """Whether anybody collects traces: for those who would compute an attribute."""
    return _traces is not None


def trace_requests(app: "FastAPI", *, untraced: Sequence[str]) -> None:
    """A span for each request to this application.

    Args:
        untraced: regular expressions of the paths that are left out.
    """
    if _traces is not None:
        _traces.trace_requests(app, untraced)


def span(name: str, *, callers: Iterable[Caller | None] = (), **attributes: Attribute) -> AbstractContextManager[Span]:
    """Time the block, as a part of what this thread does.

    Args:
        callers: spans for which the block works, begun on other threads. A span has one parent: the first of them
            whose trace is kept. It has links to the others.
    """
    if _traces is None:
        return NO_SPAN
    return _traces.span(name, callers, attributes)


def annotate(**attributes: Attribute) -> None:
    """Add to the span that this thread is in, if there is one."""
    if _traces is not None:
        _traces.annotate(attributes)


def current_caller() -> Caller | None:
    """The span that this thread is in, for `callers` of another one."""
    return None if _traces is None else _traces.current_caller()


def traceparent() -> str | None:
    """The span that this thread is in, as W3C's header writes it, to be kept in a row."""
    return None if _traces is None else _traces.traceparent()


def within(parent: str | None) -> AbstractContextManager[None]:
    """What is sent in this block belongs to the trace of that `traceparent`, or to none, whatever this thread is in."""
    return nullcontext() if _traces is None else _traces.within(parent)


def add_trace_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For structlog: `trace_id` and `span_id` on each line that is written within a span."""
    if _traces is not None:
        event.update(_traces.ids())
    return event
