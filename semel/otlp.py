"""OpenTelemetry behind `semel.tracing`, which imports this module only when traces are on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from semel import __version__

_EXPORT_S = 3.0
"""Timeout of one attempt to send spans: a process that ends must not wait long for a missing collector."""

_PROPAGATOR = TraceContextTextMapPropagator()
"""It leaves baggage out, or whatever a client sends as baggage would travel in every message."""


class _OpenSpan:
    """An open span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def annotate(self, **attributes: str | float) -> None:
        _annotate(self._span, attributes)


class _WithoutTexts(SpanExporter):
    """Drops the messages of exceptions and the queries of URLs, of every library: both may quote a text."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._inner.export([_without_texts(span) for span in spans])

    @override
    def shutdown(self) -> None:
        self._inner.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


class Traces:
    """Collects spans and sends them in the background.

    Args:
        endpoint: OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`.
        service: the name of this process in the collector.
    """

    def __init__(self, endpoint: str, *, service: str) -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = _WithoutTexts(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("semel", __version__)
        propagate.set_global_textmap(_PROPAGATOR)
        CeleryInstrumentor().instrument(tracer_provider=self._provider)

    def trace_requests(self, app: FastAPI, untraced: Sequence[str]) -> None:
        """Open a span for each request to this application; see `semel.tracing.trace_requests`."""
        excluded = rf"//[^/]+(?:{'|'.join(untraced)})([?]|$)" if untraced else None
        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=self._provider, excluded_urls=excluded, exclude_spans=["receive", "send"]
        )

    @contextmanager
    def span(
        self, name: str, callers: Iterable[object | None], attributes: Mapping[str, str | float]
    ) -> Iterator[_OpenSpan]:
        """Time the block; see `semel.tracing.span`. An exception marks the span as failed and passes on."""
        given = [caller for caller in callers if isinstance(caller, SpanContext)]
        known = list({(caller.trace_id, caller.span_id): caller for caller in given}.values())
        parent = next((caller for caller in known if caller.trace_flags.sampled), known[0] if known else None)
        with self._tracer.start_as_current_span(
            name,
            context=None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent)),
            links=[Link(caller) for caller in known if caller is not parent],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            _annotate(span, attributes)
            try:
                yield _OpenSpan(span)
            except Exception as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise

    def annotate(self, attributes: Mapping[str, str | float]) -> None:
        """Add attributes to this thread's current span."""
        _annotate(trace.get_current_span(), attributes)

    def current_caller(self) -> SpanContext | None:
        """This thread's current span; None if there is none."""
        current = trace.get_current_span().get_span_context()
        return current if current.is_valid else None

    def traceparent(self) -> str | None:
        """This thread's current span as a `traceparent` header; None if there is none."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def within(self, parent: str | None) -> Iterator[None]:
        """Make the block part of the trace of a `traceparent`, or of no trace."""
        token = context.attach(_PROPAGATOR.extract({"traceparent": parent} if parent else {}, context.Context()))
        try:
            yield
        finally:
            context.detach(token)

    def ids(self) -> dict[str, str]:
        """`trace_id` and `span_id` of this thread's current span; empty if there is none."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(current.trace_id), "span_id": trace.format_span_id(current.span_id)}

    def close(self) -> None:
        """Send the remaining spans and stop tracing Celery."""
        CeleryInstrumentor().uninstrument()
        self._provider.shutdown()


def _annotate(span: trace.Span, attributes: Mapping[str, str | float]) -> None:
    for name, value in attributes.items():
        span.set_attribute(f"semel.{name}", value)


def _without_query(value: Any) -> Any:
    """Cut a URL at its query, which may contain a token or a customer's text."""
    is_url = isinstance(value, str) and value.startswith(("http://", "https://", "/"))
    return value.partition("?")[0] if is_url else value


def _without_texts(span: ReadableSpan) -> ReadableSpan:
    original = span.attributes or {}
    attributes = {name: _without_query(value) for name, value in original.items() if name != "url.query"}
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
