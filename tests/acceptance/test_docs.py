"""The code in docs/how-to runs unchanged, except for the address and the model."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import semel as package
from tests.support.processes import KINDS_TOML, Processes, processes

HOW_TO = Path(package.__file__).parent.parent / "docs" / "how-to"
BLOCKS = {page.stem: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in HOW_TO.glob("*.md")}


# The code in the pages does not close its clients, as is usual in short scripts.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def run(semel: Processes, page: str, *, model: str = "minilm", served: str = "fake") -> dict[str, object]:
    (code,) = BLOCKS[page]
    assert "http://127.0.0.1:8700" in code
    names: dict[str, object] = {}
    exec(code.replace("http://127.0.0.1:8700", semel.url).replace(model, served), names)
    return names


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("kinds"), toml=KINDS_TOML) as running:
        yield running


def test_sparse(kinds: Processes) -> None:
    names = run(kinds, "sparse", model="splade", served="sparse")
    assert len(names["entries"]) == 6  # type: ignore[arg-type]
    assert len(names["rows"]) == 2  # type: ignore[arg-type]


def test_classify(kinds: Processes) -> None:
    names = run(kinds, "classify", model="mood", served="labels")
    assert names["best"] in names["scores"]  # type: ignore[operator]
    assert {"label", "scores"} <= set(names["table"].column_names)  # type: ignore[attr-defined]


def test_sync_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMEL_HOME", str(tmp_path / "home"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    (code,) = BLOCKS["sync-from-python"]
    names: dict[str, object] = {}
    exec(code, names)
    report = names["report"]
    assert (report.written, report.computed, report.failures) == (1, 1, {})  # type: ignore[attr-defined]


def test_every_page_has_a_test() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert {page for page, code in BLOCKS.items() if code} <= tested


def test_openai(semel: Processes) -> None:
    vectors = run(semel, "openai")["vectors"]
    expected = semel.client.embed(["The cat sat on the mat.", "A second text."], model="fake")
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)


def test_cohere(semel: Processes) -> None:
    names = run(semel, "cohere")
    assert len(names["embedded"].embeddings.int8[0]) == 16  # type: ignore[attr-defined]
    assert names["best"] in (0, 1)


def test_huggingface(semel: Processes) -> None:
    names = run(semel, "huggingface")
    np.testing.assert_allclose(
        names["vector"], semel.client.embed(["The cat sat on the mat."], model="fake"), rtol=1e-6
    )
    assert -1 <= names["scores"][0] <= 1  # type: ignore[index]


def test_langchain(semel: Processes) -> None:
    names = run(semel, "langchain")
    assert len(names["best"]) == 1  # type: ignore[arg-type]


def test_batches(semel: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = run(semel, "batches")["answers"]
    assert [answer["custom_id"] for answer in answers] == [f"text-{i}" for i in range(1000)]  # type: ignore[attr-defined]


def test_llamaindex(semel: Processes) -> None:
    names = run(semel, "llamaindex")
    assert len(names["best"]) == 1  # type: ignore[arg-type]


def test_litellm(semel: Processes) -> None:
    names = run(semel, "litellm")
    assert set(names["scores"]) == {0, 1}  # type: ignore[call-overload]
    assert len(names["vector"]) == 16  # type: ignore[arg-type]


def test_jobs(semel: Processes) -> None:
    names = run(semel, "jobs")
    assert names["table"].column("page").to_pylist() == [3, 4]  # type: ignore[attr-defined]
    assert names["job"].counts.failed == 1  # type: ignore[attr-defined]
    names["client"].close()  # type: ignore[attr-defined]


def test_rerank(semel: Processes) -> None:
    names = run(semel, "rerank")
    assert names["best"] in (0, 1)
    names["client"].close()  # type: ignore[attr-defined]


def test_monitor(semel: Processes) -> None:
    waiting = run(semel, "monitor")["waiting"]
    assert any(line.startswith('semel_queue_work_seconds{queue="bulk.cpu"}') for line in waiting)  # type: ignore[attr-defined]


def test_ollama(semel: Processes) -> None:
    vectors = run(semel, "ollama")["vectors"]
    expected = semel.client.embed(["The cat sat on the mat.", "A second text."], model="fake")
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)


def test_voyage(semel: Processes) -> None:
    names = run(semel, "voyage")
    assert np.abs(np.array(names["vectors"])).max() <= 127
    assert names["best"] in (0, 1)


def test_haystack(semel: Processes) -> None:
    names = run(semel, "haystack")
    expected = semel.client.embed(["The cat sat on the mat."], model="fake")[0]
    np.testing.assert_allclose(np.array(names["vector"]), expected, atol=1e-6)
    assert len(names["best"]) == 1  # type: ignore[arg-type]
