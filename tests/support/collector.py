"""A collector of traces: receives OTLP over HTTP and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import wait_until


@dataclass(frozen=True)
class Exported:
    """One span. Ids are hexadecimal; `parent` is empty for the root of a trace."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    kind: int
    failed: bool
    seconds: float
    attributes: dict[str, Any]
    links: list[tuple[str, str]] = field(default_factory=list)


class Collector:
    """Everything that was exported to `url`, as spans and as bytes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Exported] = []
        self.raw = b""

    def take(self, body: bytes) -> None:
        """Keep the spans of one request."""
        self.raw += body
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(part.resource.attributes)["service.name"]
            self.spans += [_exported(span, service) for scope in part.scope_spans for span in scope.spans]

    def named(self, name: str, **attributes: object) -> list[Exported]:
        """The spans of a name that have these attributes, given without `semel.`."""
        expected = {f"semel.{key}": value for key, value in attributes.items()}
        return [s for s in self.spans if s.name == name and expected.items() <= s.attributes.items()]

    def wait_for(self, name: str, **attributes: object) -> Exported:
        """Wait for a span of a name with these attributes, and return it; fails if there are several."""
        wait_until(lambda: bool(self.named(name, **attributes)), detail=lambda: str([s.name for s in self.spans]))
        (span,) = self.named(name, **attributes)
        return span

    def of(self, trace: str) -> list[Exported]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace == trace]


def _exported(span: Any, service: str) -> Exported:
    return Exported(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        service=service,
        kind=span.kind,
        failed=span.status.code == 2,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port while the block runs."""

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            running.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    running = Collector(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
