"""Pieces of long texts: each fits into the model, together they are the text, and a short text stays as it is."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.backends.models.digests import Digests
from semel.backends.models.source import ModelSource, find_model
from semel.backends.shared.tokenizing import load_tokenizer
from semel.chunking import Chunker
from semel.errors import BadInputError
from semel.rows import Item
from semel.settings import BUILT_IN_MODELS
from semel.values.sync import ChunkOptions

WORDS = ["cat", "mat", "unbelievably", "émigré", "漢字", "x" * 40, "a.", "b!", "\n\n", "\n", "# Title", "  "]
LONG = "\n\n".join(f"Paragraph {i} says something. It has a second sentence, too." for i in range(200))


@cache
def minilm() -> ModelSource:
    return find_model("minilm", dict(BUILT_IN_MODELS), models_dir=None, digests=Digests(None))


@cache
def chunker(tokens: int | None = None, overlap: int = 0, prompt: str = "") -> Chunker:
    return Chunker(minilm(), ChunkOptions(tokens, overlap), prompt=prompt)


@cache
def tokenizer() -> object:
    return load_tokenizer(minilm())


def tokens_of(text: str) -> int:
    return len(tokenizer()(text, truncation=False)["input_ids"])  # type: ignore[operator]


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.sampled_from(WORDS), max_size=120), markdown=st.booleans())
def test_pieces_fit_and_are_the_text(words: list[str], markdown: bool) -> None:
    text = " ".join(words)
    pieces = chunker(16).pieces(text, markdown=markdown)
    assert all(tokens_of(piece.text) <= 16 for piece in pieces) or (len(pieces) == 1 and not text.strip())
    assert all(text[piece.start :].startswith(piece.text) for piece in pieces)
    between, at = "", 0
    for piece in pieces:
        between += text[at : piece.start]
        at = piece.start + len(piece.text)
    assert not (between + text[at:]).strip(), "only white space may be between pieces"


def test_pieces_are_as_long_as_the_model_reads() -> None:
    pieces = chunker().pieces(LONG)
    sizes = [tokens_of(piece.text) for piece in pieces]
    assert max(sizes) <= minilm().described.spec.max_tokens
    assert min(sizes[:-1]) > 200, "pieces that are much smaller would cost more than they should"
    assert all(piece.text.endswith((".", "\n")) for piece in pieces), "paragraphs are not torn"


def test_a_short_text_stays_as_it_is() -> None:
    text = "  a short text, with white space around it \n"
    assert [piece.text for piece in chunker().pieces(text)] == [text]


def test_neighbours_overlap_as_asked() -> None:
    text = " ".join(f"word{i}" for i in range(400))
    pieces = chunker(64, 16).pieces(text)
    shared = [before.start + len(before.text) - after.start for before, after in pairwise(pieces)]
    assert all(each > 0 for each in shared)
    assert all(
        tokens_of(text[after.start : after.start + size]) <= 16 + 2
        for after, size in zip(pieces[1:], shared, strict=True)
    )
    assert all(tokens_of(piece.text) <= 64 for piece in pieces)


def test_the_prompt_is_counted() -> None:
    prompt = "search for the following document: "
    assert all(tokens_of(prompt + piece.text) <= 32 for piece in chunker(32, prompt=prompt).pieces(LONG))


def test_markdown_keeps_sections_together() -> None:
    text = "\n\n".join(f"## Section {i}\n\nSome words about the number {i}." for i in range(40))
    assert all(piece.text.startswith("## Section") for piece in chunker(40).pieces(text, markdown=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ChunkOptions(300), "reads at most 256 tokens, so pieces cannot have 300"),
        (ChunkOptions(2), "pieces of 2 tokens have room for 0 of a text"),
        (ChunkOptions(20, 18), "so 18 of them cannot overlap"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: ChunkOptions, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Chunker(minilm(), options)


def test_items_become_rows_with_their_place_in_their_text(tmp_path: Path) -> None:
    items = [
        Item(0, LONG, "docs/a.md", "a.md"),
        Item(1, None, "docs/b.txt", "b.txt", error="the text is empty"),
        Item(2, "short", "c.txt:1", None, fields={"page": 3}),
    ]
    rows = list(chunker().split(items))
    assert [row.index for row in rows] == list(range(len(rows)))
    *of_a, bad, short = rows
    assert [row.id for row in of_a] == [f"a.md#{i}" for i in range(len(of_a))]
    assert of_a[1].where == "docs/a.md, piece 1"
    assert (bad.id, bad.text, bad.error) == ("b.txt", None, "the text is empty")
    assert (short.id, short.text, short.where, short.fields) == ("2#0", "short", "c.txt:1", {"page": 3})
