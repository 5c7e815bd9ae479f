"""The stream of blocks from an input to an output, on a pipeline in this process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semel.cli.work import embedding
from semel.cli.work.embedding import (
    EmbeddedBlock,
    EmbedOptions,
    Summary,
    embed_blocks,
    embed_local,
    read_source,
    spread,
    write_blocks,
)
from semel.cli.work.outputs import Block
from semel.errors import BadInputError, ModelLoadError
from semel.rows import Item
from semel.settings import load_settings
from semel.values.text import Outcome
from tests.support.local import LocalSemel, local_semel
from tests.support.values import vectors


@pytest.fixture
def here(tmp_path: Path) -> Iterator[LocalSemel]:
    with local_semel(tmp_path, "fake:?dim=4&fail_on=poison") as running:
        yield running


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three texts, two of them under way at a time."""
    monkeypatch.setattr(embedding, "_BLOCK_TEXTS", 3)
    monkeypatch.setattr(embedding, "_BLOCKS_UNDER_WAY", 2)


def options(folder: Path, *, output: str = "out.npy", truncate: bool = True) -> EmbedOptions:
    return EmbedOptions(
        folder / "in.txt",
        folder / output,
        model="fake",
        device="auto",
        text_field="text",
        prompt_name="",
        skip_bad=True,
        truncate=truncate,
    )


def items(*texts: str | None) -> list[Item]:
    return [
        Item(i, text, f"in.txt:{i + 1}", error=None if text is not None else "is empty") for i, text in enumerate(texts)
    ]


def blocks_of(here: LocalSemel, folder: Path, texts: Iterator[Item], **more: bool) -> list[EmbeddedBlock]:
    return list(embed_blocks(here.pipeline, here.space(), options(folder, **more), texts))


@pytest.mark.usefixtures("small_blocks")
def test_blocks_come_in_the_order_of_the_input(here: LocalSemel, tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(11)]
    blocks = blocks_of(here, tmp_path, iter(items(*texts)))
    assert [len(one.block.items) for one in blocks] == [3, 3, 3, 2]
    rows = np.concatenate([one.block.vectors for one in blocks])
    np.testing.assert_array_equal(rows, here.embed(*texts).vectors)


@pytest.mark.usefixtures("small_blocks")
def test_only_a_few_blocks_of_the_input_are_read_ahead(here: LocalSemel, tmp_path: Path) -> None:
    read: list[int] = []

    def texts() -> Iterator[Item]:
        for item in items(*(f"text {i}" for i in range(30))):
            read.append(item.index)
            yield item

    blocks = embed_blocks(here.pipeline, here.space(), options(tmp_path), texts())
    next(blocks)
    assert len(read) <= 6
    blocks.close()


@pytest.mark.usefixtures("small_blocks")
def test_an_input_that_fails_midway_ends_the_stream(here: LocalSemel, tmp_path: Path) -> None:
    def broken() -> Iterator[Item]:
        yield from items("a", "b", "c", "d")
        raise BadInputError("in.txt:5: not UTF-8")

    with pytest.raises(BadInputError, match=r"in\.txt:5"):
        blocks_of(here, tmp_path, broken())


def test_a_bad_text_fails_alone_in_its_place(here: LocalSemel, tmp_path: Path) -> None:
    (one,) = blocks_of(here, tmp_path, iter(items("good", None, "a poison", "also good")))
    assert set(one.block.errors) == {1, 2}
    assert one.block.errors[1] == "is empty"
    assert one.outcomes == [Outcome.COMPUTED, Outcome.FAILED, Outcome.COMPUTED]
    np.testing.assert_array_equal(one.block.vectors[[0, 3]], here.embed("good", "also good").vectors)


def test_spread_gives_every_input_its_row() -> None:
    made = vectors(2)
    block = spread(items(None, "a", None, "b"), [1, 3], made, {3: "failed"}, [True, False])
    np.testing.assert_array_equal(block.vectors[[1, 3]], made)
    assert np.isnan(block.vectors[[0, 2]]).all()
    assert block.errors == {0: "is empty", 2: "is empty", 3: "failed"}
    assert list(block.truncated) == [False, True, False, False]


def test_a_block_without_bad_inputs_is_not_copied() -> None:
    made = vectors(2)
    assert spread(items("a", "b"), [0, 1], made, {}, [False, False]).vectors is made


def summary_of(*blocks: EmbeddedBlock) -> Summary:
    summary = Summary(seconds=2.0)
    for one in blocks:
        summary.add(one)
    return summary


def test_the_summary_counts_each_input_once(tmp_path: Path) -> None:
    block = spread(items("a", None, "b", "c"), [0, 2, 3], vectors(3), {3: "failed"}, [True, False, False])
    summary = summary_of(EmbeddedBlock(block, [Outcome.HIT, Outcome.COALESCED, Outcome.FAILED]))
    counts = summary.counts()
    assert (counts.hit, counts.computed, counts.coalesced, counts.failed) == (1, 0, 1, 2)
    assert summary.lines(Path("out.npy")) == [
        "4 texts in 2.0 s (2 texts/s): 0 computed, 1 hits, 1 coalesced → out.npy",
        "1 texts were longer than the model's limit and were truncated",
        "2 inputs have no vector:",
        "  in.txt:2: is empty",
        "  in.txt:4: failed",
    ]


def test_the_summary_lists_the_first_bad_inputs_only() -> None:
    bad = items(*[None] * 25)
    empty = np.empty((0, 4), np.float32)
    summary = summary_of(EmbeddedBlock(spread(bad, [], empty, {}, []), []))
    lines = summary.lines(Path("out.npy"))
    assert len(lines) == 2 + embedding._LISTED + 1
    assert lines[-1] == "  … and 5 more"


def test_the_summary_of_a_run_without_time_has_no_rate() -> None:
    assert "(0 texts/s)" in Summary().lines(Path("out.npy"))[0]


def test_an_input_without_texts_leaves_no_output(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in\.txt contains no texts"):
        write_blocks(options(tmp_path), iter([]), dim=4, label="nothing")
    assert not list(tmp_path.glob("out*"))


def test_written_blocks_are_counted_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = EmbeddedBlock(Block(items("a", "b"), vectors(2), {}, [False] * 2), [Outcome.COMPUTED, Outcome.HIT])
    summary = write_blocks(options(tmp_path), iter([block, block]), dim=4, label="fake here")
    assert (summary.texts, summary.counts().computed, summary.counts().hit) == (4, 2, 2)
    assert summary.seconds > 0
    assert np.load(tmp_path / "out.npy").shape == (4, 4)
    assert "fake here" in capsys.readouterr().err


def test_the_source_is_read_with_the_options_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n\nthree\n")
    found = list(read_source(load_settings(), options(tmp_path)))
    assert [item.text for item in found] == ["one", None, "three"]


def test_a_run_in_this_process_uses_the_cache_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\none\n")
    settings = load_settings(home=tmp_path / "home")
    first = embed_local(settings, options(tmp_path))
    again = embed_local(settings, options(tmp_path, output="again.npy"))
    assert (first.counts().computed, again.counts().hit) == (2, 3)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "again.npy"))


def test_a_model_without_files_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n")
    (tmp_path / "semel.toml").write_text('[models.fake]\nsource = "/nowhere/at/all"\n')
    with pytest.raises(ModelLoadError):
        embed_local(load_settings(), options(tmp_path))
    assert not list(tmp_path.glob("out*"))
