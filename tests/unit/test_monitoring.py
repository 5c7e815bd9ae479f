"""The rules for Prometheus and the dashboard for Grafana ask for metrics that exist, with labels that they have."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from semel.tasks.metrics import METRICS
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


def test_prometheus_takes_the_rules_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing("promtool is not here; 'make test' fetches it where it can")
        return
    questions = tmp_path / "dashboard.yml"
    rules = [{"record": f"panel:{i}", "expr": expression} for i, (_, expression) in enumerate(ASKED)]
    questions.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    folder = DOCKER / "prometheus"
    for kind, file in (("rules", folder / "alerts.yml"), ("config", folder / "prometheus.yml"), ("rules", questions)):
        done = subprocess.run([promtool, "check", kind, str(file)], capture_output=True, text=True, check=False)
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
