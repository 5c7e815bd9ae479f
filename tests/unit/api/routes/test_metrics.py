"""GET /metrics in this process."""

from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service
from tests.support.workers import no_worker


def value(api: Service, name: str, **labels: str) -> float:
    """The value of a sample with exactly these labels; 0 when there is none."""
    families = text_string_to_metric_families(api.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if sample.labels == labels)


def test_the_answer_is_prometheus_text(api: Service) -> None:
    answer = api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE semel_http_request_seconds histogram" in answer.text


def test_texts_are_counted_by_outcome(api: Service) -> None:
    def counted() -> list[float]:
        outcomes = ("hit", "computed", "coalesced")
        return [value(api, "semel_request_texts_total", outcome=outcome, model="fake") for outcome in outcomes]

    before = counted()
    for _ in range(2):
        api.http.post("/v1/embeddings", json={"input": ["counted", "counted", "counted too"]})
    assert [after - earlier for after, earlier in zip(counted(), before, strict=True)] == [3, 2, 1]


def test_workers_and_jobs_are_read_when_prometheus_asks(api: Service) -> None:
    api.http.post("/v1/jobs", json={"input": ["a job that ends at once"]})
    assert value(api, "semel_jobs", status="completed") >= 1
    assert value(api, "semel_workers", device="cpu", status="healthy") == 1
    with no_worker(api):
        assert value(api, "semel_workers", device="cpu", status="healthy") == 0
