"""docker-compose.yml: what it opens, keeps and needs. The images themselves are not built here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from semel.api.edge.keys import Scope, find_key, load_keys
from semel.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_can_reach_a_port(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_exists(name: str) -> None:
    """The only secret is the one that `docker/make-env` makes."""
    assert set(SERVICES[name].get("secrets", [])) <= {"api-keys"}
    for volume in SERVICES[name].get("volumes", []):
        place = volume.partition(":")[0]
        assert (ROOT / place).exists() if place.startswith("./") else place in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OWN)
def test_an_own_image_is_built_from_the_one_dockerfile_with_its_extras(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    known = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = ", known, re.MULTILINE) for extra in build["args"]["EXTRAS"].split(","))


def test_the_files_of_the_api_outlive_its_container() -> None:
    assert "home:/var/lib/semel" in SERVICES["api"]["volumes"]
    assert "SEMEL_HOME=/var/lib/semel" in (ROOT / "docker" / "Dockerfile").read_text()


def test_the_image_runs_as_a_user_and_installs_dependencies_before_the_code() -> None:
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    assert lines.index("USER semel") > lines.index("COPY semel semel")
    first_install = next(i for i, line in enumerate(lines) if "pip install" in line)
    assert first_install < lines.index("COPY semel semel")
    assert "--constraint constraints.txt" in lines[first_install]


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_can_take_a_bounded_amount_of_memory(name: str) -> None:
    assert SERVICES[name]["deploy"]["resources"]["limits"]["memory"]


def test_the_linter_finds_nothing() -> None:
    command = [Path(sys.executable).parent / "compose-lint", "check", "--fail-on", "low", "docker-compose.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_password_is_written_down() -> None:
    for line in (ROOT / "docker-compose.yml").read_text().splitlines():
        for value in re.findall(r"(?:PASSWORD|_KEYS?|AUTH): +\"?([^\s,}\"]+)", line):
            assert value.startswith("${"), line


def test_docker_compose_accepts_the_file_with_the_generated_environment(tmp_path: Path) -> None:
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    subprocess.run([tmp_path / "docker" / "make-env"], check=True, capture_output=True)
    environment = tmp_path / ".env"
    assert environment.stat().st_mode & 0o777 == 0o600
    words = [line.partition("=")[2] for line in environment.read_text().splitlines()]
    assert len(set(words)) == 5
    keys = load_keys(Settings(home=tmp_path, api_keys_file=tmp_path / "docker" / "api-keys"))
    scopes = [found.scope for word in words[3:] if (found := find_key(keys, word))]
    assert scopes == [Scope.ADMIN, Scope.READ]
    assert min(map(len, words)) == 48
    before = environment.read_text()
    subprocess.run([tmp_path / "docker" / "make-env"], check=True, capture_output=True)
    assert environment.read_text() == before
    options = ["--profile", "cuda", "--profile", "monitoring", "config"]
    done = subprocess.run([command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    environment.unlink()
    refused = subprocess.run([command, "config"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "run docker/make-env first" in refused.stderr
