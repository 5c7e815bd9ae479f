"""The models that a worker offers, withdraws, and offers again."""

from collections.abc import ValuesView
from dataclasses import replace

import pytest

from semel.tasks.worker import offers as offers_module
from semel.tasks.worker.offers import REFUSED_S, Offers
from semel.values.model import Space
from tests.support.fleet import OTHER, SPACE, Clock

QUERY = replace(SPACE, prompt_name="query", fingerprint=b"q" * 32)
BIG = replace(OTHER, model="big")


@pytest.fixture
def offers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Offers:
    """`m` with a prompt, and `big`."""
    monkeypatch.setattr(offers_module, "time", clock)
    made = Offers()
    made.serve({"m": {"": SPACE, "query": QUERY}, "big": {"": BIG}})
    return made


def test_every_model_and_every_space_of_it_is_offered(offers: Offers) -> None:
    assert offers.models == ["m", "big"]
    assert offers.spaces == [SPACE, QUERY, BIG]
    assert (offers.space("m"), offers.space("m", "query")) == (SPACE, QUERY)


def test_a_withdrawn_model_is_offered_with_none_of_its_spaces(offers: Offers) -> None:
    offers.withdraw("m", QUERY.fingerprint)
    assert (offers.models, offers.spaces) == (["big"], [BIG])
    with pytest.raises(KeyError):
        offers.space("m")


def test_withdrawing_other_weights_or_an_unknown_model_changes_nothing(offers: Offers) -> None:
    offers.withdraw("m", OTHER.fingerprint)
    offers.withdraw("unknown", SPACE.fingerprint)
    assert offers.models == ["m", "big"]


def test_a_withdrawn_model_is_offered_again_after_a_while(offers: Offers, clock: Clock) -> None:
    offers.withdraw("big", BIG.fingerprint)
    clock.now += REFUSED_S - 1
    offers.renew()
    assert offers.models == ["m"]
    clock.now += 2
    offers.renew()
    assert offers.space("big") == BIG
    offers.renew()
    assert offers.models == ["m", "big"]


def test_a_model_that_fails_again_waits_again(offers: Offers, clock: Clock) -> None:
    for _ in range(2):
        offers.withdraw("big", BIG.fingerprint)
        clock.now += REFUSED_S - 1
        offers.renew()
        assert offers.models == ["m"]
        clock.now += 2
        offers.renew()
        assert offers.models == ["m", "big"]


def test_a_model_that_is_no_longer_served_does_not_return(offers: Offers, clock: Clock) -> None:
    offers.withdraw("big", BIG.fingerprint)
    clock.now += REFUSED_S + 1
    offers.renew()
    offers.serve({"m": {"": SPACE}})
    offers.renew()
    assert offers.models == ["m"]


def test_a_thread_that_is_reading_the_offers_is_not_disturbed(offers: Offers) -> None:
    class WithdrawnMeanwhile(dict[str, Space]):
        def values(self) -> ValuesView[Space]:
            offers.withdraw("big", BIG.fingerprint)
            return super().values()

    offers.serve({"m": WithdrawnMeanwhile({"": SPACE}), "big": {"": BIG}})
    assert offers.spaces == [SPACE, BIG]
    assert offers.models == ["m"]
