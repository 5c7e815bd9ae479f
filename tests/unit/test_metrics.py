"""The rules for Prometheus and the dashboard for Grafana ask for metrics that exist, with labels that they have."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from semel.metrics import METRICS
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
    folder = DOCKER / "prometheus"
    for kind, file in (("rules", folder / "alerts.yml"), ("config", folder / "prometheus.yml"), ("rules", questions)):
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
    told = {"rule_files": [str(DOCKER / "prometheus" / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "fires.yml").write_text(yaml.safe_dump(told))
    command = [promtool, "test", "rules", str(tmp_path / "fires.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_is_sound() -> None:
    compose = yaml.safe_load((DOCKER.parent / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to others"
        for volume in service.get("volumes", []):
            place = volume.partition(":")[0]
            assert place.startswith("./") or place in compose["volumes"], f"{name}: {place}"
            assert not place.startswith("./") or (DOCKER.parent / place).exists()
        if "build" in service:
            assert (DOCKER.parent / service["build"]["dockerfile"]).is_file()
