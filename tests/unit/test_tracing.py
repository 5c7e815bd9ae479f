"""Traces in one process: switched off, for a batch of several callers, and without the texts."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from semel import tracing
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BadInputError
from semel.settings import load_settings
from tests.support.collector import Collector, collector
from tests.support.processes import wait_until

OFF = """
import sys
for name in ("sdk", "exporter", "instrumentation"):
    sys.modules[f"opentelemetry.{name}"] = None
import semel.api.app, semel.tasks.worker.worker, semel.tracing
semel.tracing.configure_traces("", service="test")
semel.api.app.create_app(semel.settings.Settings())
with semel.tracing.span("work", callers=[semel.tracing.current_caller()], texts=1) as span:
    span.annotate(texts=2)
with semel.tracing.within(semel.tracing.traceparent()):
    semel.tracing.annotate(texts=3)
assert semel.tracing.add_trace_ids(None, "info", {"event": "e"}) == {"event": "e"}
semel.tracing.close_traces()
assert "semel.otlp" not in sys.modules
"""


@pytest.fixture
def spans() -> Iterator[Collector]:
    """This process, traced."""
    with collector() as made:
        tracing.configure_traces(made.url, service="test")
        yield made
        tracing.close_traces()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def test_without_a_collector_the_extra_is_not_needed() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "semel.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.celery", None)
    with pytest.raises(BadInputError, match=r"'opentelemetry.instrumentation.celery'.*pip install 'semel\[otel\]'"):
        tracing.configure_traces("http://127.0.0.1:4318/v1/traces", service="test")
    assert not tracing.is_on()


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "http://127.0.0.1:4318", "grpc://127.0.0.1:4317/x"])
def test_a_collector_is_named_with_its_path(url: str) -> None:
    with pytest.raises(BadInputError, match=r"SEMEL_OTLP_ENDPOINT.*/v1/traces"):
        load_settings(otlp_endpoint=url)


def test_a_batch_is_in_the_trace_of_its_first_caller_and_linked_to_the_others(spans: Collector, engine: Engine) -> None:
    backend = FakeBackend("fake", FakeOptions(), device="cpu")
    engine.load(backend)
    held = threading.Event()
    holding = threading.Thread(target=lambda: engine._call(lambda: bool(held.wait(10))))
    holding.start()  # so that all texts wait, and go in one batch
    submissions = []
    for name in ("first", "second", "third"):
        with tracing.span(name):
            submissions += [engine.submit(backend, ["one text", "and another"]) for _ in range(2)]
    held.set()
    holding.join()
    for submission in submissions:
        assert sum(len(part.indices) for part in submission) == 2
    tracing.close_traces()
    (batch,) = spans.named("semel.batch", texts=12)
    first, second, third = (spans.wait_for(name) for name in ("first", "second", "third"))
    assert (batch.trace, batch.parent) == (first.trace, first.id)
    assert batch.links == [(second.trace, second.id), (third.trace, third.id)]
    assert len({first.trace, second.trace, third.trace}) == 3


def test_a_batch_belongs_to_the_first_trace_that_is_kept(spans: Collector) -> None:
    callers = []
    for flag, digit in (("00", "a"), ("01", "b")):
        with tracing.within(f"00-{digit * 32}-{digit * 16}-{flag}"):
            callers.append(tracing.current_caller())
    with tracing.span("work", callers=callers):
        pass
    tracing.close_traces()
    work = spans.wait_for("work")
    assert (work.trace, work.links) == ("b" * 32, [("a" * 32, "a" * 16)])


def test_what_is_sent_within_no_trace_begins_one(spans: Collector) -> None:
    with tracing.span("outer"), tracing.within(None), tracing.span("sent"):
        pass
    tracing.close_traces()
    assert spans.wait_for("sent").trace != spans.wait_for("outer").trace


def test_a_span_that_fails_has_the_class_of_the_error_and_not_its_message(spans: Collector) -> None:
    with pytest.raises(ValueError), tracing.span("work"):
        raise ValueError("unspeakable")
    tracing.close_traces()
    work = spans.wait_for("work")
    assert work.failed
    assert work.attributes["error.type"] == "ValueError"
    assert b"unspeakable" not in spans.raw


def test_a_request_that_fails_unexpectedly_is_traced_without_its_message(spans: Collector) -> None:
    app = FastAPI()
    tracing.trace_requests(app, untraced=[])

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("unspeakable")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/fails").status_code == 500
    tracing.close_traces()
    assert spans.wait_for("GET /fails").failed
    assert b"unspeakable" not in spans.raw


def test_log_lines_carry_the_ids_of_their_span(spans: Collector) -> None:
    with structlog.testing.capture_logs([tracing.add_trace_ids]) as lines:
        log = structlog.get_logger()
        log.info("outside")
        with tracing.span("work"):
            log.info("inside")
    tracing.close_traces()
    work = spans.wait_for("work")
    outside, inside = lines
    assert "trace_id" not in outside
    assert (inside["trace_id"], inside["span_id"]) == (work.trace, work.id)


def test_a_missing_collector_does_not_delay_work_and_delays_the_end_by_seconds() -> None:
    tracing.configure_traces("http://127.0.0.1:9/v1/traces", service="test")
    with tracing.span("work"):
        pass
    closing = threading.Thread(target=tracing.close_traces)
    closing.start()
    wait_until(lambda: not closing.is_alive(), timeout_s=20)
