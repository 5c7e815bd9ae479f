"""The settings of syncs."""

import pytest

from semel.errors import BadInputError
from semel.settings import Settings, load_settings
from semel.values.sync import seconds_of, share_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5 m", 300), ("12h", 43200), ("7d", 604800), ("1.5w", 907200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1y", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="is no duration"):
        seconds_of(text)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0 %", 0), ("100%", 1), ("2.5%", 0.025)])
def test_percentages(text: str, share: float) -> None:
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["10", "101%", "-1%", "%"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="is no percentage"):
        share_of(text)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sink": "parquet:x/y"}, "source"),
        ({"source": "docs", "sink": "parquet:x/y", "keep": "long"}, "'long' is no duration"),
        ({"source": "docs", "sink": "parquet:x/y", "max_delete": "much"}, "'much' is no percentage"),
        ({"source": "docs", "sink": "parquet:x/y", "colour": "red"}, "colour"),
        ({"source": "docs", "sink": "parquet:x/y", "chunk": {"size": 5}}, "chunk.size"),
    ],
)
def test_a_wrong_entry_names_what_is_wrong(entry: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        load_settings(syncs={"handbook": entry})


def test_a_wrong_name_is_refused() -> None:
    with pytest.raises(BadInputError, match="a sync cannot be named 'a b'"):
        load_settings(syncs={"a b": {"source": "docs", "sink": "parquet:x/y"}})


def test_an_entry_as_in_the_documentation() -> None:
    entry = {
        "source": "docs/",
        "include": ["**/*.md"],
        "model": "minilm",
        "chunk": {"tokens": 200, "overlap": 20},
        "sink": "lancedb:./index/handbook",
        "payload": ["path", "title"],
    }
    made = Settings(syncs={"handbook": entry}).syncs["handbook"]  # type: ignore[dict-item]
    assert (made.chunk.tokens, made.chunk.overlap, made.payload) == (200, 20, ("path", "title"))
