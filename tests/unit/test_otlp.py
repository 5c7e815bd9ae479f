"""What leaves the process in a span: ids, names and numbers, and never a text."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from semel import tracing
from tests.support.collector import Collector, collector

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans() -> Iterator[Collector]:
    """This process, traced; `spans.spans` is complete after `tracing.close_traces()`."""
    with collector() as made:
        tracing.configure_traces(made.url, service="test")
        yield made
        tracing.close_traces()


def test_attributes_are_prefixed_and_may_be_added_by_the_span_and_by_the_thread(spans: Collector) -> None:
    with tracing.span("work", texts=2) as span:
        span.annotate(hits=1)
        tracing.annotate(model="fake", rate=0.5, cut=True)
    tracing.close_traces()
    assert spans.wait_for("work").attributes == {
        "semel.texts": 2, "semel.hits": 1, "semel.model": "fake", "semel.rate": 0.5, "semel.cut": True,
    }  # fmt: skip


def test_annotating_outside_of_a_span_changes_nothing(spans: Collector) -> None:
    tracing.annotate(model="fake")
    tracing.close_traces()
    assert spans.spans == []


def test_a_span_within_a_span_is_its_child(spans: Collector) -> None:
    with tracing.span("outer"), tracing.span("inner"):
        pass
    tracing.close_traces()
    outer, inner = spans.wait_for("outer"), spans.wait_for("inner")
    assert (inner.trace, inner.parent) == (outer.trace, outer.id)
    assert not outer.parent


def test_a_traceparent_from_a_row_continues_its_trace(spans: Collector) -> None:
    with tracing.within(PARENT), tracing.span("later"):
        pass
    tracing.close_traces()
    later = spans.wait_for("later")
    assert (later.trace, later.parent) == ("a" * 32, "b" * 16)


def test_the_traceparent_of_a_span_can_be_stored_and_continued(spans: Collector) -> None:
    with tracing.span("first") as _:
        stored = tracing.traceparent()
    with tracing.within(stored), tracing.span("second"):
        pass
    tracing.close_traces()
    assert stored is not None
    assert len(stored) == 55, "the column jobs.traceparent is that wide"
    assert spans.wait_for("second").parent == spans.wait_for("first").id


def test_outside_of_a_span_there_is_no_caller_no_traceparent_and_no_id(spans: Collector) -> None:
    assert tracing.current_caller() is None
    assert tracing.traceparent() is None
    assert tracing.add_trace_ids(None, "info", {"event": "e"}) == {"event": "e"}


def test_the_block_within_leaves_the_thread_as_it_was(spans: Collector) -> None:
    with tracing.span("outer"):
        before = tracing.traceparent()
        with tracing.within(PARENT):
            assert tracing.traceparent() == PARENT
        assert tracing.traceparent() == before


def test_callers_that_are_equal_or_none_make_no_second_link(spans: Collector) -> None:
    with tracing.span("caller"):
        caller = tracing.current_caller()
    with tracing.span("work", callers=[None, caller, caller]):
        pass
    tracing.close_traces()
    work, first = spans.wait_for("work"), spans.wait_for("caller")
    assert (work.trace, work.parent, work.links) == (first.trace, first.id, [])


@pytest.fixture
def app(spans: Collector) -> FastAPI:
    """An application with two routes, one of them left out of the traces."""
    made = FastAPI()
    for path in ("/v1/models", "/health/live"):
        made.add_api_route(path, lambda: "fine")
    tracing.trace_requests(made, untraced=["/health/.*"])
    return made


def test_the_query_of_a_url_does_not_leave(app: FastAPI, spans: Collector) -> None:
    with TestClient(app) as client:
        client.get("/v1/models?token=unspeakable")
    tracing.close_traces()
    attributes = spans.wait_for("GET /v1/models").attributes
    assert b"unspeakable" not in spans.raw
    assert "url.query" not in attributes
    assert any(str(value).endswith("/v1/models") for value in attributes.values()), "the path itself stays"


def test_a_path_that_is_left_out_has_no_span(app: FastAPI, spans: Collector) -> None:
    with TestClient(app) as client:
        client.get("/health/live")
        client.get("/v1/models")
    tracing.close_traces()
    assert [span.name for span in spans.spans] == ["GET /v1/models"]


def test_baggage_of_a_client_is_not_passed_on(app: FastAPI, spans: Collector) -> None:
    carrier: dict[str, str] = {}

    @app.get("/sends")
    def sends() -> None:
        from opentelemetry import propagate

        propagate.inject(carrier)

    with TestClient(app) as client:
        client.get("/sends", headers={"traceparent": PARENT, "baggage": "secret=unspeakable"})
    assert carrier["traceparent"].startswith(f"00-{'a' * 32}-")
    assert carrier.keys() == {"traceparent"}
