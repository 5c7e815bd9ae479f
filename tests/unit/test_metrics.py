"""The table of metrics, and the rules for Prometheus and the dashboard for Grafana that ask for them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from semel.metrics import METRICS, Metric, Read, Resent, as_markdown, counter, histogram, new_registry
from tests.conftest import missing

DOCKER = Path(__file__).parents[2] / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "semel.json").read_text())
ASKED = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]),
]


@pytest.mark.parametrize(("_name", "expression"), ASKED, ids=[name for name, _ in ASKED])
def test_every_metric_and_label_exists(_name: str, expression: str) -> None:
    asked = re.findall(r"(semel_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for name, labels in asked:
        metric = METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
        assert name == metric.name or metric.kind == "histogram"
        assert set(re.findall(r"(\w+)[=!]", labels)) <= set(metric.labels)


def test_every_alert_says_how_urgent_it_is_and_what_is_wrong() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith((".", "?"))


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        missing("promtool is not here; 'make test' fetches it where it can")
    assert found is not None
    return found


def test_prometheus_takes_the_rules_and_what_the_dashboard_asks(promtool: str, tmp_path: Path) -> None:
    questions = tmp_path / "dashboard.yml"
    rules = [{"record": f"panel:{i}", "expr": expression} for i, (_, expression) in enumerate(ASKED)]
    questions.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    folder, key = tmp_path / "prometheus", tmp_path / "read-key"
    shutil.copytree(DOCKER / "prometheus", folder)
    key.write_text("sk-semel-reads")  # in the container, docker-compose.yml has it written
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("/tmp/read-key", str(key)))
    for kind, file in (("rules", folder / "alerts.yml"), ("config", config), ("rules", questions)):
        done = subprocess.run([promtool, "check", kind, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


SLOW = 'semel_http_request_seconds_bucket{{route="/v1/embeddings",le="{le}"}}'
ALL_WITHIN_1_S = [SLOW.format(le=le) for le in ("1", "+Inf")]
ANSWERED = 'semel_http_request_seconds_count{{route="/v1/embeddings",status="{status}"}}'
ENDED = 'semel_texts_total{{outcome="{outcome}"}}'
FIRES = {
    "SemelAnswersSlowly": {SLOW.format(le="0.1"): "0+94x60", **dict.fromkeys(ALL_WITHIN_1_S, "0+100x60")},
    "SemelAnswersVerySlowly": {SLOW.format(le="0.5"): "0+94x60", **dict.fromkeys(ALL_WITHIN_1_S, "0+100x60")},
    "SemelMemoryHigh": {"semel_memory_bytes": "81x60", "semel_memory_total_bytes": "100x60"},
    "SemelMemoryNearlyFull": {"semel_memory_bytes": "96x60", "semel_memory_total_bytes": "100x60"},
    "SemelTextsFail": {ENDED.format(outcome="failed"): "0+2x60", ENDED.format(outcome="computed"): "0+98x60"},
    "SemelManyTextsFail": {ENDED.format(outcome="failed"): "0+6x60", ENDED.format(outcome="computed"): "0+94x60"},
    "SemelRequestsFail": {ANSWERED.format(status="503"): "0+2x60", ANSWERED.format(status="200"): "0+98x60"},
    "SemelManyRequestsFail": {ANSWERED.format(status="500"): "0+6x60", ANSWERED.format(status="200"): "0+94x60"},
    "SemelGpuBusy": {"semel_gpu_utilization_ratio": "0.91x60"},
    "SemelGpuSaturated": {"semel_gpu_utilization_ratio": "0.99x60"},
    "SemelQueueWithoutWorker": {
        'semel_queue_texts{queue="bulk.cuda"}': "7x60",
        'semel_workers{device="cuda",status="failed"}': "1x60",
        'semel_workers{device="cpu",status="healthy"}': "1x60",
    },
    "SemelMessagesWait": {'semel_queue_oldest_seconds{queue="bulk.cpu"}': "61x60"},
    "SemelClaimsExpire": {'semel_claims_total{result="expired"}': "0+1x60"},
}
"""Alert → series by the minute that it is for. What is a little better is in CALM."""

CALM = {
    "SemelAnswersSlowly": {SLOW.format(le="0.1"): "0+96x60", **dict.fromkeys(ALL_WITHIN_1_S, "0+100x60")},
    "SemelAnswersVerySlowly": {SLOW.format(le="0.5"): "0+96x60", **dict.fromkeys(ALL_WITHIN_1_S, "0+100x60")},
    "SemelMemoryHigh": {"semel_memory_bytes": "79x60", "semel_memory_total_bytes": "100x60"},
    "SemelTextsFail": {ENDED.format(outcome="failed"): "0+1x60", ENDED.format(outcome="computed"): "0+199x60"},
    "SemelRequestsFail": {
        ANSWERED.format(status="429"): "0+50x60",
        ANSWERED.format(status="200"): "0+50x60",
        'semel_http_request_seconds_count{route="/health/ready",status="503"}': "0+90x60",
    },
    "SemelGpuBusy": {"semel_gpu_utilization_ratio": "0.89x60"},
    "SemelQueueWithoutWorker": {
        'semel_queue_texts{queue="bulk.cuda"}': "7x60",
        'semel_workers{device="cuda",status="loading"}': "1x60",
    },
    "SemelMessagesWait": {'semel_queue_oldest_seconds{queue="bulk.cpu"}': "59x60"},
    "SemelClaimsExpire": {'semel_claims_total{result="expired"}': "3x60"},
}


def test_each_alert_fires_when_its_thing_happens_and_not_before(promtool: str, tmp_path: Path) -> None:
    assert FIRES.keys() == {rule["alert"] for rule in RULES}
    cases = [(alert, series, 1) for alert, series in FIRES.items()] + [(a, series, 0) for a, series in CALM.items()]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                    "eval_time": "40m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, series, fires in cases
    ]
    rules = {"rule_files": [str(DOCKER / "prometheus" / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "fires.yml").write_text(yaml.safe_dump(rules))
    command = [promtool, "test", "rules", str(tmp_path / "fires.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The table of metrics


def test_the_reference_is_made_from_the_table() -> None:
    assert as_markdown() in (DOCKER.parent / "docs" / "reference" / "metrics.md").read_text()


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_metric_follows_the_conventions_of_prometheus(metric: Metric) -> None:
    assert metric.name.startswith("semel_")
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert list(metric.buckets) == sorted(set(metric.buckets))


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Name and labels, as Prometheus reads them → value, for semel's own metrics."""
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:6] == "semel_")}


def test_a_registry_has_the_metrics_of_the_process() -> None:
    assert b"process_cpu_seconds_total" in generate_latest(new_registry())
    assert samples(new_registry()) == {}


def test_a_counter_and_a_histogram_come_from_the_table() -> None:
    registry = new_registry()
    counter("semel_messages_total", registry).labels("cpu").inc(2)
    histogram("semel_batch_texts", registry).labels("cpu").observe(3)
    read = samples(registry)
    assert read['semel_messages_total{device="cpu"}'] == 2
    assert read['semel_batch_texts_bucket{device="cpu",le="2.0"}'] == 0
    assert read['semel_batch_texts_bucket{device="cpu",le="4.0"}'] == 1


def test_a_metric_that_is_not_in_the_table_cannot_be_made() -> None:
    with pytest.raises(KeyError, match="semel_invented_total"):
        counter("semel_invented_total", new_registry())


def test_chunks_are_counted_by_why_they_were_sent_again() -> None:
    registry = new_registry()
    resent = Resent(registry)
    resent.count(leases_expired=2, messages_lost=0)
    resent.count(leases_expired=1, messages_lost=5)
    assert samples(registry)['semel_chunks_resent_total{reason="lease_expired"}'] == 3
    assert samples(registry)['semel_chunks_resent_total{reason="message_lost"}'] == 5


def test_values_are_read_at_each_scrape_and_not_before() -> None:
    values = iter([1.0, 2.0])
    registry = new_registry()
    registry.register(Read(lambda: [("semel_jobs", [(["completed"], next(values))])]))
    assert samples(registry) == {'semel_jobs{status="completed"}': 1.0}
    assert samples(registry) == {'semel_jobs{status="completed"}': 2.0}


def test_a_counter_may_be_read_elsewhere_too() -> None:
    registry = new_registry()
    registry.register(Read(lambda: [("semel_cache_evictions_total", [([], 7)])]))
    assert samples(registry) == {"semel_cache_evictions_total": 7.0}
