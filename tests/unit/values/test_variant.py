"""Departures from a model's definition: as text, and as vector spaces of their own."""

import json
from dataclasses import replace

import pytest

from semel.errors import BadInputError
from semel.values.model import Space
from semel.values.variant import AS_DEFINED, Variant
from tests.support.values import space

DEPARTURES = [
    Variant(max_tokens=5),
    Variant(max_tokens=6),
    Variant(truncate_side="left"),
    Variant(normalize=False),
    Variant(document_tokens=5),
    Variant(document_tokens=6),
    Variant(max_tokens=5, truncate_side="left"),
    Variant(max_tokens=5, document_tokens=5),
    Variant(truncate_side="left", document_tokens=5),
    Variant(max_tokens=5, truncate_side="left", normalize=False, document_tokens=5),
]


# As text


@pytest.mark.parametrize("variant", [AS_DEFINED, *DEPARTURES, Variant(normalize=True)])
def test_a_variant_is_read_back_as_it_was_written(variant: Variant) -> None:
    assert Variant.from_json(variant.to_json()) == variant


def test_no_departure_is_no_text() -> None:
    assert AS_DEFINED.to_json() == ""
    assert Variant(None, "right", None, None).to_json() == ""


def test_the_text_holds_only_what_departs() -> None:
    assert json.loads(Variant(truncate_side="left", normalize=False).to_json()) == {
        "truncate_side": "left",
        "normalize": False,
    }


def test_the_longest_text_fits_into_its_column() -> None:
    longest = Variant(max_tokens=2**31, truncate_side="left", normalize=False, document_tokens=2**31)
    assert len(longest.to_json()) <= 200


# As spaces


@pytest.mark.parametrize(
    "variant",
    [AS_DEFINED, Variant(max_tokens=256), Variant(normalize=True), Variant(max_tokens=256, normalize=True)],
)
def test_what_the_definition_has_anyway_is_no_other_space(variant: Variant) -> None:
    defined = space(normalize=True, max_tokens=256)
    assert defined.with_variant(variant) is defined
    assert defined.published is defined


def test_each_departure_is_a_space_of_its_own() -> None:
    spaces = [space(), *(space().with_variant(variant) for variant in DEPARTURES)]
    assert len({each.fingerprint for each in spaces}) == len(spaces)
    assert len({each.key_base for each in spaces}) == len(spaces)


def test_a_departure_of_a_model_that_does_not_normalise_is_to_normalise() -> None:
    plain = space(normalize=False)
    assert plain.with_variant(Variant(normalize=False)) is plain
    scaled = plain.with_variant(Variant(normalize=True))
    assert (plain.normalizes, scaled.normalizes) == (False, True)
    assert scaled.fingerprint != plain.fingerprint


@pytest.mark.parametrize("variant", DEPARTURES)
def test_a_departure_comes_back_to_the_published_space(variant: Variant) -> None:
    made = space().with_variant(variant)
    assert made.published == space()
    assert made.variant == variant
    assert (made.model, made.prompt_name, made.dim) == (space().model, space().prompt_name, space().dim)


def test_a_space_says_what_departs_from_the_definition_and_nothing_else() -> None:
    made = space().with_variant(Variant(max_tokens=256, normalize=False))
    assert made.variant == Variant(normalize=False)
    assert (made.max_tokens, made.normalizes) == (256, False)
    assert space().with_variant(Variant(max_tokens=5)).max_tokens == 5


def test_the_fingerprint_of_a_variant_is_that_of_its_own_definition() -> None:
    made = space().with_variant(Variant(max_tokens=5, truncate_side="left"))
    assert made.fingerprint == space(max_tokens=5, truncate_side="left").fingerprint
    assert made.spec.fingerprint == made.fingerprint


@pytest.mark.parametrize("variant", DEPARTURES)
def test_the_namespace_and_the_variant_may_come_in_any_order(variant: Variant) -> None:
    assert space().within("a").with_variant(variant).key_base == space().with_variant(variant).within("a").key_base


def test_a_limit_above_that_of_the_model_is_refused() -> None:
    with pytest.raises(BadInputError, match="model 'm' reads at most 256 tokens, not 257"):
        space().with_variant(Variant(max_tokens=257))


def scorer() -> Space:
    return space(1, kind="cross-encoder", pooling='{"activation": "Sigmoid"}')


@pytest.mark.parametrize("normalize", [True, False])
def test_scores_have_no_length_to_normalise(normalize: bool) -> None:
    with pytest.raises(
        BadInputError, match="is of kind cross-encoder: it computes no dense vectors, which alone are normalised"
    ):
        scorer().with_variant(Variant(normalize=normalize))


def test_a_variant_of_a_cross_encoder_keeps_its_activation() -> None:
    made = scorer().with_variant(Variant(document_tokens=5))
    assert (made.head.activation, made.fingerprint != scorer().fingerprint) == ("Sigmoid", True)
    assert not made.normalizes


def test_a_cross_encoder_of_an_earlier_release_has_scores_in_the_cache() -> None:
    assert space(1, kind="cross-encoder", pooling="[]").head.activation == "Identity"


def test_an_embedding_model_has_no_activation() -> None:
    assert space(pooling="mean").head.activation == "Identity"


def test_a_variant_of_another_prompt_is_another_space() -> None:
    one, other = space(), replace(space(prompt="find "), prompt_name="query")
    variant = Variant(max_tokens=5)
    assert one.with_variant(variant).fingerprint != other.with_variant(variant).fingerprint


def test_a_limit_of_documents_above_the_models_own_changes_nothing_on_the_right() -> None:
    defined = space(max_tokens=256)
    assert defined.with_variant(Variant(document_tokens=256)) is defined
    assert defined.with_variant(Variant(document_tokens=4096)) is defined
    assert defined.with_variant(Variant(document_tokens=255)) is not defined
    left = defined.with_variant(Variant(truncate_side="left", document_tokens=256))
    assert left.fingerprint != defined.with_variant(Variant(truncate_side="left")).fingerprint
