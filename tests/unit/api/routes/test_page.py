"""The page: every part is served with its type, and nothing else of the package."""

import re
from importlib.resources import files

import pytest

from tests.support.service import Service

PARTS = sorted(part.name for part in (files("semel.api") / "page").iterdir())


def test_the_page_comes_without_a_key_and_runs_only_its_own_scripts(api: Service) -> None:
    answer = api.http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_its_type_and_is_checked_again_on_each_load(api: Service, name: str) -> None:
    answer = api.http.get(f"/page/{name}")
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.headers["content-type"] == f"{types[name.rpartition('.')[2]]}; charset=utf-8"
    assert answer.content == (files("semel.api") / "page" / name).read_bytes()
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_everything_that_the_page_and_its_scripts_load_is_served(api: Service) -> None:
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', api.http.get("/").text))
    for name in PARTS:
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', api.http.get(f"/page/{name}").text))
    assert {"app.js", "page.css", "dom.js"} <= named <= set(PARTS)


@pytest.mark.parametrize("name", ["nothing.js", "app.py", "app.js.map", "__init__.py", "%2e%2e%2fapp.py", "app"])
def test_any_other_name_is_404(api: Service, name: str) -> None:
    answer = api.http.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
