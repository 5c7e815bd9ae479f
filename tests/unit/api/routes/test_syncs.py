"""/v1/syncs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semel import sync
from semel.api.edge.keys import file_line
from semel.settings import Settings
from semel.values.model import ModelEntry
from tests.support.service import Service, service

MODELS = {
    "fake": ModelEntry("fake:?dim=8"),
    "old": ModelEntry("fake:?dim=8"),
    "new": ModelEntry("fake:?dim=8&weights=b"),
}

DOCUMENTS = [{"id": f"doc {i}", "text": f"text {i}"} for i in range(5)]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    lines = [file_line("sk-all", "admin"), file_line("sk-look", "read"), file_line("sk-red", "read", ["namespace=red"])]
    (tmp_path / "keys").write_text("\n".join(lines))
    with service(tmp_path, models=MODELS, api_keys_file=tmp_path / "keys") as running:
        yield running


def run(folder: Path, model: str) -> None:
    settings = Settings(home=folder, models=MODELS)
    sink = f"parquet:{folder / 'index' / 'handbook'}"
    sync.run(source=DOCUMENTS, sink=sink, model=model, chunk_characters=50, settings=settings)


def ask(api: Service, method: str, path: str, key: str = "sk-all") -> Any:
    return api.http.request(method, path, headers={"authorization": f"Bearer {key}"})


def states(answer: Any) -> list[tuple[str, str, int]]:
    return [(each["model"], each["state"], each["documents"]) for each in answer.json()["collections"]]


def test_a_sync_is_shown_with_its_collections_and_runs(api: Service, tmp_path: Path) -> None:
    assert ask(api, "GET", "/v1/syncs").json()["data"] == []
    run(tmp_path, "old")
    (listed,) = ask(api, "GET", "/v1/syncs", "sk-look").json()["data"]
    assert listed == ask(api, "GET", "/v1/syncs/handbook", "sk-look").json()
    assert (listed["name"], listed["running"]) == ("handbook", False)
    assert states(ask(api, "GET", "/v1/syncs/handbook")) == [("old", "serving", 5)]
    (last,) = listed["runs"]
    assert (last["outcome"], last["report"]["written"], last["report"]["plan"]["added"]) == ("done", 5, 5)


def test_the_new_collection_answers_after_a_cutover_and_the_old_one_after_a_rollback(
    api: Service, tmp_path: Path
) -> None:
    run(tmp_path, "old")
    refused = ask(api, "POST", "/v1/syncs/handbook/cutover")
    assert (refused.status_code, "no second collection" in refused.text) == (409, True)
    run(tmp_path, "new")
    assert states(ask(api, "GET", "/v1/syncs/handbook")) == [("old", "serving", 5), ("new", "ready", 5)]
    assert states(ask(api, "POST", "/v1/syncs/handbook/cutover")) == [("old", "retired", 5), ("new", "serving", 5)]
    assert (tmp_path / "index" / "handbook").readlink().name != ""
    assert states(ask(api, "POST", "/v1/syncs/handbook/rollback")) == [("old", "serving", 5), ("new", "retired", 5)]


def test_an_unknown_sync_is_404(api: Service) -> None:
    for method, path in (("GET", ""), ("POST", "/cutover"), ("POST", "/rollback")):
        answer = ask(api, method, f"/v1/syncs/nobody{path}")
        assert answer.status_code == 404, answer.text
        assert "nobody" in answer.json()["error"]["message"]


def test_a_key_of_a_namespace_sees_none(api: Service, tmp_path: Path) -> None:
    run(tmp_path, "old")
    assert ask(api, "GET", "/v1/syncs", "sk-red").json()["data"] == []
    assert ask(api, "GET", "/v1/syncs/handbook", "sk-red").status_code == 404
    assert ask(api, "POST", "/v1/syncs/handbook/cutover", "sk-look").status_code == 403
