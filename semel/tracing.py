"""Traces, each from the HTTP request through the message in the queue to the device's batch and the store.

`SEMEL_OTLP_ENDPOINT` is the address of the collector. Without it, `semel.otlp` is not imported, and a span costs less
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
"""A reference to a span, which may be used on any thread."""


class Span(Protocol):
    """A piece of work that is being timed."""

    def annotate(self, **attributes: Attribute) -> None:
        """Add attributes to the span."""


class _NoSpan:
    def annotate(self, **attributes: Attribute) -> None:
        pass


NO_SPAN: AbstractContextManager[Span] = nullcontext(_NoSpan())

_traces: "Traces | None" = None


def configure_traces(endpoint: str, *, service: str) -> None:
    """Send the spans of this process, Celery's included, to a collector; an empty endpoint turns traces off.

    Args:
        endpoint: OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`.
        service: the name of this process in the collector.

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
            f"SEMEL_OTLP_ENDPOINT is set, but the package {missing.name!r} is not installed, which traces need: "
            "run pip install 'semel[otel]', or unset SEMEL_OTLP_ENDPOINT"
        ) from None
    _traces = Traces(endpoint, service=service)


def close_traces() -> None:
    """Send the remaining spans and stop tracing."""
    global _traces
    traces, _traces = _traces, None
    if traces is not None:
        traces.close()


def is_on() -> bool:
    """Whether traces are collected: check it before computing an expensive attribute."""
    return _traces is not None


def trace_requests(app: "FastAPI", *, untraced: Sequence[str]) -> None:
    """Open a span for each request to this application.

    Args:
        app: the application.
        untraced: regular expressions for the paths to leave out.
    """
    if _traces is not None:
        _traces.trace_requests(app, untraced)


def span(name: str, *, callers: Iterable[Caller | None] = (), **attributes: Attribute) -> AbstractContextManager[Span]:
    """Time the block as a child of this thread's current span.

    Args:
        name: of the span.
        callers: the spans, often of other threads, for which the block works. The first of them that is sampled
            becomes the parent; the span has links to the others.
        attributes: ids, names and numbers.
    """
    if _traces is None:
        return NO_SPAN
    return _traces.span(name, callers, attributes)


def annotate(**attributes: Attribute) -> None:
    """Add attributes to this thread's current span, if there is one."""
    if _traces is not None:
        _traces.annotate(attributes)


def current_caller() -> Caller | None:
    """This thread's current span, to be one of the `callers` of another span."""
    return None if _traces is None else _traces.current_caller()


def traceparent() -> str | None:
    """This thread's current span in the format of W3C's `traceparent` header, which fits into a database row."""
    return None if _traces is None else _traces.traceparent()


def within(parent: str | None) -> AbstractContextManager[None]:
    """Make the block part of the trace of a `traceparent`, or of no trace, whatever this thread's current span is."""
    return nullcontext() if _traces is None else _traces.within(parent)


def add_trace_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `trace_id` and `span_id` to a log line that is written within a span; a structlog processor."""
    if _traces is not None:
        event.update(_traces.ids())
    return event
