"""From texts to token ids and back, with a small tokenizer of the `tokenizers` library."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from semel.backends.base import Spelled, Tokens
from semel.backends.shared.positions import check_positions
from semel.backends.shared.tokenizing import (
    TextTokenizer,
    as_pairs,
    load_tokenizer,
    padded,
    padded_segments,
)
from semel.errors import BadInputError, ModelLoadError
from semel.values.text import Pair
from semel.values.variant import TruncateSide, Variant
from tests.support.model_files import source, write_model, write_sentence_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "query:", "naïve", "漢字"]
PAD, UNKNOWN, CLS, SEP, THE, CAT, SAT, QUERY, NAIVE, KANJI = range(len(WORDS))


def loaded(*, segments: bool = True, pad_token_id: int | None = PAD) -> Any:
    """A tokenizer of words, as transformers' AutoTokenizer returns it."""
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
    return SimpleNamespace(backend_tokenizer=fast, model_input_names=names, pad_token_id=pad_token_id)


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer("m", loaded(), max_tokens=6)


def test_a_text_becomes_ids_with_special_tokens(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize(["the cat", "dog"]) == [
        Tokens([CLS, THE, CAT, SEP], truncated=False),
        Tokens([CLS, UNKNOWN, SEP], truncated=False),
    ]


def test_an_empty_text_has_only_special_tokens(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize([""]) == [Tokens([CLS, SEP], truncated=False)]
    assert tokenizer.tokenize([]) == []


def test_a_prompt_goes_before_each_text(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize(["cat", "the"], prompt="query: ") == [
        Tokens([CLS, QUERY, CAT, SEP], truncated=False),
        Tokens([CLS, QUERY, THE, SEP], truncated=False),
    ]


@pytest.mark.parametrize(("words", "truncated"), [(4, False), (5, True), (500, True)])
def test_a_text_above_the_limit_is_truncated_and_says_so(tokenizer: TextTokenizer, words: int, truncated: bool) -> None:
    (tokens,) = tokenizer.tokenize(["cat " * words])
    assert tokens == Tokens([CLS, CAT, CAT, CAT, CAT, SEP], truncated=truncated)


def test_texts_of_one_batch_are_not_padded(tokenizer: TextTokenizer) -> None:
    assert [len(tokens.ids) for tokens in tokenizer.tokenize(["cat", "the cat sat"])] == [3, 5]


def test_padding_and_truncation_of_the_loaded_tokenizer_are_replaced() -> None:
    brought = loaded()
    brought.backend_tokenizer.enable_padding(length=20)
    brought.backend_tokenizer.enable_truncation(3)
    assert TextTokenizer("m", brought, max_tokens=6).tokenize(["the cat sat"]) == [
        Tokens([CLS, THE, CAT, SAT, SEP], truncated=False)
    ]


def test_a_pair_is_refused_by_a_model_that_makes_vectors(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadInputError, match="model 'm' makes vectors of texts and scores no pairs; send it texts"):
        tokenizer.tokenize(["a text", Pair("query", "document")])


def test_a_pair_becomes_one_row_with_its_segments(tokenizer: TextTokenizer) -> None:
    (tokens,) = tokenizer.tokenize_pairs([Pair("cat", "the")])
    assert tokens == Tokens([CLS, CAT, SEP, THE, SEP], truncated=False, segments=[0, 0, 0, 1, 1])


def test_the_prompt_of_a_pair_goes_before_the_query() -> None:
    tokenizer = TextTokenizer("m", loaded(), max_tokens=20)
    (tokens,) = tokenizer.tokenize_pairs([Pair("cat", "the")], prompt="query: ")
    assert tokens.ids == [CLS, QUERY, CAT, SEP, THE, SEP]


def test_a_model_that_takes_no_segments_gets_none() -> None:
    tokenizer = TextTokenizer("m", loaded(segments=False), max_tokens=20)
    assert tokenizer.tokenize_pairs([Pair("cat", "the")])[0].segments == ()


def test_a_long_pair_is_truncated_at_the_limit(tokenizer: TextTokenizer) -> None:
    (tokens,) = tokenizer.tokenize_pairs([Pair("cat", "the " * 9)])
    assert len(tokens.ids) == len(tokens.segments) == 6
    assert tokens.truncated


def test_a_text_is_refused_by_a_model_that_scores_pairs(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadInputError, match="model 'm' scores pairs of query and document, not texts"):
        tokenizer.tokenize_pairs([Pair("cat", "the"), "a text"])
    assert as_pairs("m", []) == []


def test_spelling_shows_the_pieces_of_the_text(tokenizer: TextTokenizer) -> None:
    text = "the naïve  漢字"
    assert tokenizer.spell(text) == [
        Spelled(CLS, "[CLS]", special=True, start=None, stop=None),
        Spelled(THE, "the", special=False, start=0, stop=3),
        Spelled(NAIVE, "naïve", special=False, start=4, stop=9),
        Spelled(KANJI, "漢字", special=False, start=11, stop=13),
        Spelled(SEP, "[SEP]", special=True, start=None, stop=None),
    ]
    assert [token.id for token in tokenizer.spell(text, special=False)] == [THE, NAIVE, KANJI]


def test_spelling_truncates_nothing_and_leaves_truncation_on(tokenizer: TextTokenizer) -> None:
    assert len(tokenizer.spell("cat " * 100, special=False)) == 100
    assert tokenizer.tokenize(["cat " * 100])[0].truncated


def trained(kind: str) -> Any:
    """A small tokenizer of each family, trained on words, numbers, code and Chinese."""
    corpus = [
        "The cat sat on the mat, didn't it?",
        "def f(x):\n    return x + 1",
        "漢字かな交じり文。東京都",
        "naïve 12345 aaaa",
    ]
    made: Tokenizer
    if kind == "word pieces":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))  # type: ignore[call-arg]
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=150, special_tokens=WORDS[:4])
    elif kind == "byte pairs":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=WORDS[:4], initial_alphabet=alphabet)
    elif kind == "sentence pieces":
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.normalizer = normalizers.Replace(" ", "▁")
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=WORDS[:4])
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=WORDS[:4], unk_token="[UNK]")
    made.train_from_iterator(corpus * 20, trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return SimpleNamespace(backend_tokenizer=made, model_input_names=["input_ids"], pad_token_id=PAD)


FAMILIES = ("word pieces", "byte pairs", "sentence pieces", "unigrams")
TOKENIZERS = {kind: TextTokenizer("m", trained(kind), max_tokens=12) for kind in FAMILIES}
LEFT = Variant(truncate_side="left")
PARTS = st.sampled_from(
    ["the cat", "naïve", " ", "   ", "\n\n", "x" * 300, "漢字かな", "12345", "def f(x):", "é", "a", "🙂"]
)


@pytest.mark.parametrize("kind", FAMILIES)
@settings(deadline=None, max_examples=40)  # tokenising the whole text takes a part of a second
@given(st.lists(PARTS, min_size=1, max_size=40), st.integers(0, 200), st.sampled_from(["", " "]))
def test_the_head_of_a_long_text_has_the_ids_of_the_whole(kind: str, parts: list[str], times: int, join: str) -> None:
    text = join.join(parts * (1 + times))
    tokenizer = TOKENIZERS[kind]
    whole = tokenizer._fast.encode(text)
    assert tokenizer.tokenize([text]) == [Tokens(whole.ids, truncated=bool(whole.overflowing))]


def test_the_heads_of_a_long_pair_have_the_ids_of_the_whole() -> None:
    tokenizer = TOKENIZERS["word pieces"]
    for query, document in (("the cat " * 4000, "sat"), ("sat", "a mat, " * 9000), ("cat " * 900, "sat on " * 500)):
        whole = tokenizer._fast.encode(query, document)
        assert tokenizer.tokenize_pairs([Pair(query, document)])[0].ids == whole.ids


def test_a_text_of_many_megabytes_is_tokenised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer("m", trained("word pieces"), max_tokens=256)
    assert len(tokenizer.whole.encode("the cat").ids) == 4
    seen: list[int] = []

    def encode(texts: list[str], **_: object) -> list[Any]:
        seen.extend(map(len, texts))
        return []

    monkeypatch.setattr(tokenizer, "_fast", SimpleNamespace(encode_batch_fast=encode))
    tokenizer.tokenize(["the cat sat " * 700_000])
    assert len(seen) == 1
    assert seen[0] < 10_000


# Variants


def cutting(tokenizer: TextTokenizer, limit: int, side: TruncateSide = "right") -> Any:
    """The library's tokenizer, which cuts as given."""
    made = type(tokenizer._fast).from_str(tokenizer._fast.to_str())
    made.enable_truncation(limit, direction=side)
    return made


@pytest.mark.parametrize("kind", FAMILIES)
@settings(deadline=None, max_examples=40)
@given(
    st.lists(PARTS, min_size=1, max_size=40),
    st.integers(0, 200),
    st.sampled_from(["", " "]),
    st.integers(3, 12),
    st.sampled_from(["left", "right"]),
)
def test_a_variant_cuts_where_the_library_cuts(
    kind: str, parts: list[str], times: int, join: str, limit: int, side: TruncateSide
) -> None:
    text = join.join(parts * (1 + times))
    tokenizer = TOKENIZERS[kind]
    whole = cutting(tokenizer, limit, side).encode(text)
    found = tokenizer.tokenize([text], variant=Variant(max_tokens=limit, truncate_side=side))
    assert found == [Tokens(whole.ids, truncated=bool(whole.overflowing))]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_end_of_a_long_text_is_read_up_to_the_limit_of_the_model(kind: str) -> None:
    tokenizer, text = TOKENIZERS[kind], "the cat sat on 12345 naïve mats, " * 3000 + "didn't it?"
    whole = cutting(tokenizer, 12, "left").encode(text)
    assert tokenizer.tokenize([text], variant=LEFT) == [Tokens(whole.ids, truncated=True)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [4, 7, 12])
def test_a_variant_cuts_pairs_where_the_library_cuts(limit: int, side: TruncateSide) -> None:
    tokenizer = TextTokenizer("m", loaded(), max_tokens=12)
    library = cutting(tokenizer, limit, side)
    for query, document in (("the cat", "sat"), ("cat " * 4, "the sat " * 5000), ("the cat " * 5000, "sat " * 3)):
        whole = library.encode(query, document)
        (tokens,) = tokenizer.tokenize_pairs([Pair(query, document)], variant=Variant(limit, side))
        assert tokens == Tokens(whole.ids, truncated=bool(whole.overflowing), segments=whole.type_ids)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("own", [2, 5, 9])
def test_a_text_is_cut_after_its_own_tokens(kind: str, own: int) -> None:
    tokenizer, text = TOKENIZERS[kind], "the cat sat on the mat, didn't it? " * 5000
    ids = tokenizer.whole.encode(text[:200], add_special_tokens=False).ids
    (tokens,) = tokenizer.tokenize([text], variant=Variant(document_tokens=own))
    assert tokens == Tokens([CLS, *ids[:own], SEP], truncated=True)


def test_a_text_is_cut_before_its_prompt_is_put_before_it(tokenizer: TextTokenizer) -> None:
    (tokens,) = tokenizer.tokenize(["the cat sat"], prompt="query: ", variant=Variant(document_tokens=2))
    assert tokens == Tokens([CLS, QUERY, THE, CAT, SEP], truncated=True)


def test_a_text_with_no_more_tokens_of_its_own_is_whole(tokenizer: TextTokenizer) -> None:
    found = tokenizer.tokenize(["the cat", "the cat "], variant=Variant(document_tokens=2))
    assert found == [Tokens([CLS, THE, CAT, SEP], truncated=False)] * 2


def test_the_document_of_a_pair_is_cut_and_not_its_query(tokenizer: TextTokenizer) -> None:
    (tokens,) = tokenizer.tokenize_pairs([Pair("the cat", "sat the cat")], variant=Variant(document_tokens=1))
    assert tokens == Tokens([CLS, THE, CAT, SEP, SAT, SEP], truncated=True, segments=[0, 0, 0, 0, 1, 1])


def test_a_text_that_is_cut_twice_loses_its_document_tokens_first(tokenizer: TextTokenizer) -> None:
    variant = Variant(max_tokens=4, truncate_side="left", document_tokens=3)
    assert tokenizer.tokenize(["the cat sat naïve"], variant=variant)[0].ids == [CLS, CAT, SAT, SEP]


@pytest.mark.parametrize(("limit", "pairs"), [(1, False), (2, False), (2, True), (3, True)])
def test_a_limit_without_room_for_a_text_is_refused(tokenizer: TextTokenizer, limit: int, pairs: bool) -> None:
    tokenize, given = (tokenizer.tokenize_pairs, Pair("cat", "the")) if pairs else (tokenizer.tokenize, "cat")
    special = 3 if pairs else 2
    why = f"a limit of {limit} tokens leaves no room .* the {special} special tokens .* at least {special + 1}"
    with pytest.raises(BadInputError, match=why):
        tokenize([given], variant=Variant(max_tokens=limit))  # type: ignore[operator]
    assert len(tokenize([given], variant=Variant(max_tokens=special + 1))[0].ids) == special + 1  # type: ignore[operator]


def test_a_variant_leaves_the_cut_of_the_model_as_it_was(tokenizer: TextTokenizer) -> None:
    text = "the cat sat the cat sat"
    plain = tokenizer.tokenize([text])
    assert tokenizer.tokenize([text], variant=Variant(3, "left")) == [Tokens([CLS, SAT, SEP], truncated=True)]
    assert tokenizer.tokenize([text]) == plain == [Tokens([CLS, THE, CAT, SAT, THE, SEP], truncated=True)]
    assert tokenizer.tokenize([text], variant=LEFT)[0].ids == [CLS, SAT, THE, CAT, SAT, SEP]


def test_threads_with_different_variants_get_their_own_cuts(tokenizer: TextTokenizer) -> None:
    text, cuts = "the cat sat " * 50, [Variant(limit, side) for limit in (3, 4, 5) for side in ("left", "right")]
    alone = [tokenizer.tokenize([text] * 20, variant=cut) for cut in cuts]
    with ThreadPoolExecutor(len(cuts)) as pool:
        for _ in range(50):
            assert list(pool.map(lambda cut: tokenizer.tokenize([text] * 20, variant=cut), cuts)) == alone


def test_only_the_end_of_many_megabytes_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer("m", trained("word pieces"), max_tokens=256)
    seen: list[str] = []

    def encode(texts: list[str], **_: object) -> list[Any]:
        seen.extend(texts)
        return []

    varied = SimpleNamespace(encode_batch_fast=encode, enable_truncation=lambda *_, **__: None)
    monkeypatch.setattr(tokenizer, "_varied", varied)
    tokenizer.tokenize(["the cat sat " * 700_000 + "on the mat"], variant=LEFT)
    (tail,) = seen
    assert tail.endswith("sat on the mat")
    assert len(tail) < 10_000


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="model 'm' has only a slow Python tokenizer; save it with"):
        TextTokenizer("m", SimpleNamespace(pad_token_id=0), max_tokens=6)


@pytest.mark.parametrize(("given", "used"), [(7, 7), (None, 0), (0, 0)])
def test_a_tokenizer_without_padding_pads_with_zero(given: int | None, used: int) -> None:
    assert TextTokenizer("m", loaded(pad_token_id=given), max_tokens=6).pad_id == used


def tokens(*lengths: int) -> list[Tokens]:
    return [Tokens(list(range(1, length + 1)), truncated=False, segments=[1] * length) for length in lengths]


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    ids, mask = padded(tokens(3, 1), pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [1, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


def test_further_rows_repeat_the_first_text_so_that_none_is_all_padding() -> None:
    ids, mask = padded(tokens(2, 1), pad_id=9, length=4, rows=4)
    assert ids.tolist() == [[1, 2, 9, 9], [1, 9, 9, 9], [1, 2, 9, 9], [1, 2, 9, 9]]
    assert mask.any(axis=1).all()


def test_segments_are_padded_as_the_ids_are() -> None:
    pairs = [Tokens([1, 2, 3], truncated=False, segments=[0, 1, 1]), Tokens([4], truncated=False, segments=[0])]
    assert padded_segments(pairs, length=4, rows=3).tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]


def test_a_model_without_segments_gets_zeros() -> None:
    assert not padded_segments([Tokens([1, 2], truncated=False)], length=2, rows=1).any()


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"model_type": "bert"}, 64),
        ({"model_type": "roberta", "pad_token_id": 1}, 62),
        ({"model_type": "mpnet", "pad_token_id": None}, 63),
        ({"model_type": None}, 64),
    ],
)
def test_the_limit_must_fit_into_the_table_of_positions(tmp_path: Path, config: dict[str, Any], fits: int) -> None:
    write_model(tmp_path, **config)
    check_positions(source(tmp_path, max_tokens=fits))
    with pytest.raises(
        ModelLoadError,
        match=rf"positions for {fits} tokens, but its limit is {fits + 1} tokens: add max_tokens = {fits} to its entry",
    ):
        check_positions(source(tmp_path, max_tokens=fits + 1))


@pytest.mark.parametrize("config", [{"rope_theta": 1e4}, {"rope_parameters": {}}, {"max_position_embeddings": None}])
def test_a_model_without_a_table_of_positions_has_no_such_limit(tmp_path: Path, config: dict[str, Any]) -> None:
    check_positions(source(write_model(tmp_path, **config), max_tokens=100_000))


def auto_tokenizer(result: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace transformers' AutoTokenizer; the list has the arguments of its calls."""
    calls: list[dict[str, Any]] = []

    def from_pretrained(folder: str, **options: Any) -> Any:
        calls.append({"folder": folder, **options})
        if isinstance(result, Exception):
            raise result
        return result

    stand_in = SimpleNamespace(AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    return calls


def test_the_tokenizer_is_loaded_from_the_folder_and_never_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = loaded()
    calls = auto_tokenizer(brought, monkeypatch)
    assert load_tokenizer(source(write_model(tmp_path))) is brought
    assert calls == [{"folder": str(tmp_path), "trust_remote_code": False, "local_files_only": True}]


@pytest.mark.parametrize(
    ("files", "lowered"),
    [({"sentence_bert_config.json": {"do_lower_case": True}}, True), ({"sentence_bert_config.json": {}}, False)],
)
def test_a_sentence_model_is_lower_cased_if_its_files_ask_for_it(
    tmp_path: Path, files: dict[str, Any], lowered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto_tokenizer(loaded(), monkeypatch)
    write_sentence_model(tmp_path, ("Pooling", {}), files=files)
    tokenizer = TextTokenizer("m", load_tokenizer(source(tmp_path)), max_tokens=6)
    assert (tokenizer.tokenize(["CAT"])[0].ids == [CLS, CAT, SEP]) is lowered


def test_a_plain_transformer_is_not_lower_cased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto_tokenizer(loaded(), monkeypatch)
    write_model(tmp_path, files={"sentence_bert_config.json": {"do_lower_case": True}})
    tokenizer = TextTokenizer("m", load_tokenizer(source(tmp_path)), max_tokens=6)
    assert tokenizer.tokenize(["CAT"])[0].ids == [CLS, UNKNOWN, SEP]


def test_a_tokenizer_that_cannot_be_read_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto_tokenizer(OSError("tokenizer.json is missing"), monkeypatch)
    with pytest.raises(ModelLoadError, match=f"the tokenizer in {tmp_path} cannot be read: tokenizer.json is missing"):
        load_tokenizer(source(write_model(tmp_path)))
