"""The stream of blocks from an input to an output, on a pipeline in this process."""

from collections import Counter
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
from semel.values.read_counts import ReadCounts
from semel.values.result_columns import ResultColumns
from semel.values.text import Outcome
from tests.support.local import LocalSemel, local_semel
from tests.support.values import vectors

COLUMNS = ResultColumns("embed", 4)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[LocalSemel]:
    with local_semel(tmp_path, "fake:?dim=4&fail_on=poison") as running:
        yield running


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three texts, two of them under way at a time."""
    monkeypatch.setattr(embedding, "_BLOCK_TEXTS", 3)
    monkeypatch.setattr(embedding, "_BLOCKS_UNDER_WAY", 2)


def options(
    folder: Path,
    *,
    source: str = "in.txt",
    output: str = "out.npy",
    truncate: bool = True,
    strict: bool = False,
    include: tuple[str, ...] = (),
) -> EmbedOptions:
    return EmbedOptions(
        folder / source,
        folder / output,
        model="fake",
        device="auto",
        text_field="text",
        prompt_name="",
        input_type="document",
        strict=strict,
        truncate=truncate,
        include=include,
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
    summary = summary_of(EmbeddedBlock(block, [Outcome.HIT, Outcome.COALESCED, Outcome.FAILED], ReadCounts(1, 30, 10)))
    counts = summary.counts()
    assert (counts.hit, counts.computed, counts.coalesced, counts.failed) == (1, 0, 1, 2)
    assert summary.lines(Path("out.npy")) == [
        "4 texts in 2.0 s (2 texts/s): 0 computed, 1 hits, 1 coalesced → out.npy",
        "1 texts (25.0 %) were longer than the model's limit: about 25% of all tokens are not in the vectors "
        "(--chunk splits long texts)",
        "2 inputs have no vector:",
        "  in.txt:2: is empty",
        "  in.txt:4: failed",
    ]


def test_the_summary_lists_the_first_bad_inputs_only() -> None:
    bad = items(*[None] * 25)
    empty = np.empty((0, 4), np.float32)
    summary = summary_of(EmbeddedBlock(spread(bad, [], empty, {}, []), [], ReadCounts()))
    lines = summary.lines(Path("out.npy"))
    assert len(lines) == 2 + embedding._LISTED + 1
    assert lines[-1] == "  … and 5 more"


def test_the_summary_of_a_run_without_time_has_no_rate() -> None:
    assert "(0 texts/s)" in Summary().lines(Path("out.npy"))[0]


def test_the_summary_tells_the_time_to_fetch_results_apart() -> None:
    summary = Summary(seconds=2.0, fetching_s=0.5, texts=4)
    assert "4 texts in 2.0 s (2 texts/s, 0.5 s of them to fetch the results): " in summary.lines(Path("out.npy"))[0]


def test_the_summary_counts_the_files_of_a_folder_that_were_not_read() -> None:
    skipped = Counter({"without a suffix": 1200, ".html": 30, ".py": 2})
    assert Summary(skipped=skipped).lines(Path("out.npy"))[1] == (
        "1,232 files of the folder were not read: 1,200 without a suffix, 30 .html, 2 .py "
        "(--include '*.html' reads such files as text)"
    )
    many = Counter({f".x{i}": 1 for i in range(9)})
    assert ".x5 … (--include" in Summary(skipped=many).lines(Path("out.npy"))[1]


def test_an_input_without_texts_leaves_no_output(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in\.txt contains no texts"):
        write_blocks(options(tmp_path), iter([]), COLUMNS, label="nothing")
    assert not list(tmp_path.glob("out*"))


def test_written_blocks_are_counted_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = EmbeddedBlock(
        Block(items("a", "b"), vectors(2), {}, [False] * 2), [Outcome.COMPUTED, Outcome.HIT], ReadCounts()
    )
    summary = write_blocks(options(tmp_path), iter([block, block]), COLUMNS, label="fake here")
    assert (summary.texts, summary.counts().computed, summary.counts().hit) == (4, 2, 2)
    assert summary.seconds > 0
    assert np.load(tmp_path / "out.npy").shape == (4, 4)
    assert "fake here" in capsys.readouterr().err


def test_files_of_the_folder_that_were_not_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.html", "c.pdf", ".hidden"):
        (tmp_path / "in" / name).touch()
    block = EmbeddedBlock(Block(items("a"), vectors(1), {}, [False]), [Outcome.COMPUTED], ReadCounts())
    asked = options(tmp_path, source="in", include=("*.html",))
    assert write_blocks(asked, iter([block]), COLUMNS, label="fake here").skipped == {".pdf": 1}


def test_until_the_first_text_is_done_the_bar_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> Iterator[EmbeddedBlock]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_blocks(options(tmp_path), never(), COLUMNS, label="fake here", waits_for="loading fake")
    assert "loading fake" in capsys.readouterr().err


def test_the_source_is_read_with_the_options_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n\nthree\n")
    found = list(read_source(load_settings(), options(tmp_path)))
    assert [item.text for item in found] == ["one", None, "three"]
    with pytest.raises(BadInputError, match=r"in\.txt:2: the text is empty"):
        list(read_source(load_settings(), options(tmp_path, strict=True)))


def test_files_that_the_command_includes_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.html").write_text("<p>one")
    found = list(read_source(load_settings(), options(tmp_path, source="in", include=("*.html",))))
    assert [(item.text, item.id) for item in found] == [("<p>one", "a.html")]


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
