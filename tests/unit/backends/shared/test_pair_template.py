"""Pairs through a chat template, with a tokenizer whose tokens are words."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semel.backends.base import Tokens
from semel.backends.shared.pair_template import PairTemplate, answer_tokens
from semel.errors import BadInputError, ModelLoadError
from semel.values.text import Pair
from tests.support.model_files import source, write_model, write_sentence_model


class Words:
    """A tokenizer of words that remembers how often it rendered."""

    chat_template: str | None = "a template"

    def __init__(self, *, end: str = "answer yes or no :") -> None:
        self._end = end
        self._ids: dict[str, int] = {}
        self.rendered: list[list[dict[str, str]]] = []

    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        self.rendered.append(messages)
        return " ".join([*(f"<{each['role']}> {each['content']}" for each in messages), self._end]).strip()

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        assert not add_special_tokens, "the template has the special tokens"
        return SimpleNamespace(ids=[self._ids.setdefault(word, len(self._ids)) for word in text.split()])

    def words(self, tokens: Tokens) -> str:
        names = {i: word for word, i in self._ids.items()}
        return " ".join(names[i] for i in tokens.ids)


def template(words: Words, *, max_tokens: int = 100) -> PairTemplate:
    return PairTemplate("m", words, words, max_tokens=max_tokens)


def test_a_pair_is_rendered_with_its_roles() -> None:
    words = Words()
    (tokens,) = template(words).tokenize([Pair("what is it", "a cat")])
    assert words.words(tokens) == "<query> what is it <document> a cat answer yes or no :"
    assert not tokens.truncated


def test_the_prompt_is_the_system_message() -> None:
    words = Words()
    template(words).tokenize([Pair("q", "d")], prompt="judge")
    assert words.rendered == [
        [
            {"role": "system", "content": "judge"},
            {"role": "query", "content": "q"},
            {"role": "document", "content": "d"},
        ]
    ]


def test_each_pair_gives_one_row_in_order() -> None:
    words = Words()
    rows = template(words).tokenize([Pair("q", "one"), Pair("q", "two")])
    assert ["one" in words.words(rows[0]), "two" in words.words(rows[1])] == [True, True]


def test_a_long_pair_keeps_the_end_of_the_template() -> None:
    words = Words()
    (tokens,) = template(words, max_tokens=12).tokenize([Pair("q", "d " * 50)])
    assert words.words(tokens) == "<query> q <document> d d d d answer yes or no :"
    assert tokens.truncated


def test_a_pair_of_exactly_the_limit_is_not_truncated() -> None:
    words = Words()
    (tokens,) = template(words, max_tokens=9).tokenize([Pair("q", "d")])
    assert (len(tokens.ids), tokens.truncated) == (9, False)


def test_a_limit_below_the_template_still_bounds_the_row() -> None:
    words = Words()
    (tokens,) = template(words, max_tokens=3).tokenize([Pair("q", "d " * 50)])
    assert words.words(tokens) == "or no :"


def test_a_template_without_an_end_is_cut_at_the_limit() -> None:
    words = Words(end="")
    (tokens,) = template(words, max_tokens=4).tokenize([Pair("q", "x y z")])
    assert words.words(tokens) == "<query> q <document> x"


def test_the_end_of_the_template_is_found_once_for_each_prompt() -> None:
    words = Words()
    pairs = template(words, max_tokens=8)
    for prompt in ("", "judge", "", "judge"):
        pairs.tokenize([Pair("q", "d " * 50)], prompt=prompt)
    assert len(words.rendered) == 4 + 2 * 2  # each pair, and two samples for each prompt


def test_a_text_instead_of_a_pair_is_refused() -> None:
    with pytest.raises(BadInputError, match="pairs of query and document"):
        template(Words()).tokenize(["a text"])


@pytest.mark.parametrize("chat_template", [None, ""])
def test_a_tokenizer_without_a_chat_template_is_refused(chat_template: str | None) -> None:
    words = Words()
    words.chat_template = chat_template
    with pytest.raises(ModelLoadError, match="model 'm' is a language model without a chat template"):
        template(words)


def vocabulary(*words: str) -> Any:
    return SimpleNamespace(get_vocab=lambda: {word: i for i, word in enumerate(words)})


def test_the_answers_are_yes_and_no_of_the_vocabulary(tmp_path: Path) -> None:
    model = source(write_model(tmp_path), kind="cross-encoder")
    assert answer_tokens(model, vocabulary("maybe", "no", "yes")) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"true_token_id": 5, "false_token_id": 6}, (5, 6)), ({"true_token_id": 5}, (5, None))],
)
def test_the_files_may_name_other_answers(
    tmp_path: Path, settings: dict[str, int], expected: tuple[int, int | None]
) -> None:
    write_sentence_model(tmp_path, ("LogitScore", settings))
    model = source(tmp_path, kind="cross-encoder")
    assert answer_tokens(model, vocabulary("yes", "no")) == expected


@pytest.mark.parametrize("words", [("yes",), ("no",), ("Yes", "No")])
def test_a_vocabulary_without_answers_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    model = source(write_model(tmp_path), kind="cross-encoder")
    with pytest.raises(ModelLoadError, match="its tokenizer has no tokens 'yes' and 'no' for the answer"):
        answer_tokens(model, vocabulary(*words))
