"""Each key is computed once: claimed, computed, stored, released; the rest is collected from others."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from semel.cache.claims import LocalClaims, RedisClaims
from semel.cache.keys import input_keys
from semel.errors import BackendError, StorageFullError, UnavailableError
from semel.tasks.worker import embed as embed_module
from semel.tasks.worker.embed import CancelledError, Embedder, Terms
from semel.values.text import Input, Lane, Outcome
from semel.values.variant import Variant
from semel.values.vectors import Computed
from tests.support.computing import Device, device_on
from tests.support.fleet import Clock, Fleet
from tests.support.values import PRODUCER, vectors

TEXTS = [f"text {i}" for i in range(40)]
"""Two words each: 16 tokens hold eight of them, so they need five batches."""


@pytest.fixture
def claims() -> LocalClaims:
    return LocalClaims()


@pytest.fixture
def embedder(device: Device, fleet: Fleet, claims: LocalClaims) -> Embedder:
    """An embedder whose claims the test can take as well."""
    return Embedder(device.engine, fleet.store, claims)


def compute(embedder: Embedder, device: Device, missing: dict[bytes, Input], **options: object) -> Computed:
    return embedder.compute(device.model, "", missing, **{"lane": Lane.BULK, **options})  # type: ignore[arg-type]


def stored(fleet: Fleet, keys: list[bytes]) -> int:
    return int(fleet.store.lookup(keys).present.sum())


def put(fleet: Fleet, device: Device, keys: list[bytes]) -> None:
    """As another worker would."""
    n = len(keys)
    fleet.store.put_many(device.space(), keys, vectors(n, 8), tokens=[3] * n, truncated=[False] * n, producer=PRODUCER)


def test_every_missing_key_is_computed_and_stored_with_its_own_vector(device: Device, fleet: Fleet) -> None:
    missing = device.missing(*TEXTS)
    done = compute(device.embedder, device, missing)
    assert done.outcomes == dict.fromkeys(missing, Outcome.COMPUTED)
    assert done.tokens == dict.fromkeys(missing, 2)
    found = fleet.store.get_many(list(missing), dim=8)
    assert found.vectors is not None
    assert (found.vectors == device.model.backend.embed_texts(TEXTS)).all()
    assert device.stages.count("store") == 5, "each batch is stored when it ends"


def test_the_prompt_is_put_before_the_text(device: Device, fleet: Fleet) -> None:
    missing = device.missing("a needle", prompt_name="query")
    device.embedder.compute(device.model, "query", missing, lane=Lane.INTERACTIVE)
    found = fleet.store.get_many(list(missing), dim=8)
    assert found.vectors is not None
    assert (found.vectors == device.model.backend.embed_texts(["find a needle"])).all()


def test_a_text_is_read_and_stored_as_its_variant_says(device: Device, fleet: Fleet) -> None:
    backend = device.model.backend
    text, raw = "the words and the end", backend.forward(backend.tokenize(["find the words and the end", "the end"]))
    for prompt_name, variant, expected in (
        ("query", Variant(normalize=False), raw[0]),
        ("", Variant(max_tokens=2, truncate_side="left", normalize=False), raw[1]),
        ("", Variant(max_tokens=2, truncate_side="left"), backend.embed_texts(["the end"])[0]),
    ):
        space = device.space(prompt_name).with_variant(variant)
        missing: dict[bytes, Input] = dict(zip(input_keys(space.fingerprint, [text]), [text], strict=True))
        device.embedder.compute(device.model, prompt_name, missing, lane=Lane.BULK, variant=variant)
        found = fleet.store.get_many(list(missing), dim=8)
        assert found.vectors is not None
        assert (found.vectors[0] == expected).all()


def test_a_bad_text_fails_alone(device: Device, fleet: Fleet) -> None:
    missing = device.missing("fine", "some poison", "fine as well")
    done = compute(device.embedder, device, missing)
    assert list(done.outcomes.values()).count(Outcome.COMPUTED) == 2
    (failed,) = done.errors
    assert missing[failed] == "some poison"
    assert stored(fleet, list(missing)) == 2


def test_a_key_that_was_stored_before_it_was_claimed_is_not_computed(device: Device, fleet: Fleet) -> None:
    missing = device.missing("early", "late")
    put(fleet, device, list(missing)[:1])
    done = compute(device.embedder, device, missing)
    assert [done.outcomes[key] for key in missing] == [Outcome.COALESCED, Outcome.COMPUTED]
    assert device.engine.stats.texts == 1


def test_a_key_that_another_worker_is_computing_is_collected_when_it_arrives(
    embedder: Embedder, device: Device, fleet: Fleet, claims: LocalClaims, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "time", clock)
    missing = device.missing(*TEXTS[:6])
    theirs = claims.take(list(missing)[:2])

    def arrive_after_a_second() -> None:
        if clock.now > 1001.0 and theirs.keys:
            put(fleet, device, list(theirs.keys))
            theirs.close()

    clock.on_sleep = arrive_after_a_second
    done = compute(embedder, device, missing)
    assert [done.outcomes[key] for key in missing] == [Outcome.COALESCED] * 2 + [Outcome.COMPUTED] * 4
    assert device.engine.stats.texts == 4
    assert (clock.slept[0], clock.slept[-1]) == (0.01, 0.25), "it looks less and less often"


def test_a_key_whose_holder_died_is_computed_here(
    embedder: Embedder, device: Device, claims: LocalClaims, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "time", clock)
    missing = device.missing("orphan")
    clock.on_sleep = claims.take(list(missing)).close  # the claim runs out, and nothing was stored
    assert list(compute(embedder, device, missing).outcomes.values()) == [Outcome.COMPUTED]
    assert len(clock.slept) == 1


def test_claims_are_free_when_the_work_is_done(embedder: Embedder, device: Device, claims: LocalClaims) -> None:
    missing = device.missing("fine", "poison")
    compute(embedder, device, missing)
    assert claims.take(list(missing)).keys == set(missing)


def test_a_batch_is_free_for_others_before_the_next_one_ends(
    embedder: Embedder, device: Device, claims: LocalClaims
) -> None:
    missing, free = device.missing(*TEXTS), list[int]()

    def count_free() -> bool:
        lease = claims.take(list(missing))
        free.append(len(lease.keys))
        lease.close()
        return True

    compute(embedder, device, missing, terms=Terms(still_wanted=count_free))
    assert free == [8, 16, 24, 32, 40]


def test_work_that_is_no_longer_wanted_stops_after_the_batch_and_keeps_what_is_done(
    embedder: Embedder, device: Device, fleet: Fleet, claims: LocalClaims
) -> None:
    missing, done = device.missing(*TEXTS), Computed()
    with pytest.raises(CancelledError):
        compute(embedder, device, missing, terms=Terms(still_wanted=lambda: False), into=done)
    assert stored(fleet, list(missing)) == 8
    assert len(done.outcomes) == 8
    assert claims.take(list(missing)).keys == set(missing)


def test_waiting_for_others_stops_when_it_is_no_longer_wanted(
    embedder: Embedder, device: Device, claims: LocalClaims
) -> None:
    missing = device.missing("theirs")
    claims.take(list(missing))
    with pytest.raises(CancelledError):
        compute(embedder, device, missing, terms=Terms(still_wanted=lambda: False))


def test_a_lost_device_keeps_what_is_done_and_frees_the_rest(fleet: Fleet, tmp_path: Path) -> None:
    claims = LocalClaims()
    with device_on(fleet.store, tmp_path, "fake:?dim=8&dead_after=3", claims=claims) as dying:
        missing = dying.missing(*TEXTS)
        with pytest.raises(BackendError):
            compute(dying.embedder, dying, missing)
        assert 0 < stored(fleet, list(missing)) < len(missing)
        assert claims.take(list(missing)).keys == set(missing)


def test_a_full_database_ends_the_work_and_frees_the_claims(
    embedder: Embedder, device: Device, fleet: Fleet, claims: LocalClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise StorageFullError("here")

    missing = device.missing(*TEXTS)
    monkeypatch.setattr(fleet.store, "put_many", refuse)
    monkeypatch.setattr(embed_module, "_PATIENCE_S", 0.1)
    with pytest.raises(StorageFullError):
        compute(embedder, device, missing)
    assert claims.take(list(missing)).keys == set(missing)


@pytest.mark.parametrize("trouble", [StorageFullError("here"), UnavailableError("the session was ended")])
def test_what_a_job_has_computed_is_stored_once_there_is_room_again(
    embedder: Embedder, device: Device, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    put, refusals = fleet.store.put_many, [trouble, trouble]

    def refuse_twice(*arguments: Any, **options: Any) -> int:
        if refusals:
            raise refusals.pop()
        return put(*arguments, **options)

    missing = device.missing(*TEXTS)
    monkeypatch.setattr(fleet.store, "put_many", refuse_twice)
    done = compute(embedder, device, missing)
    assert not refusals
    assert set(done.outcomes.values()) == {Outcome.COMPUTED}
    assert stored(fleet, list(missing)) == len(missing)


def test_a_request_gets_the_error_of_a_full_database_at_once(
    embedder: Embedder, device: Device, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def refuse(*_: object, **__: object) -> int:
        refused.append(1)
        raise StorageFullError("here")

    monkeypatch.setattr(fleet.store, "put_many", refuse)
    with pytest.raises(StorageFullError):
        compute(embedder, device, device.missing("one text"), lane=Lane.INTERACTIVE)
    assert len(refused) == 1


def test_two_workers_with_the_same_texts_compute_each_once(fleet: Fleet, tmp_path: Path) -> None:
    slow = "fake:?dim=8&text_ms=0.2"
    with (
        device_on(fleet.store, tmp_path / "a", slow, claims=RedisClaims(fleet.redis, ttl_s=10, owner="w")) as one,
        device_on(fleet.store, tmp_path / "b", slow, claims=RedisClaims(fleet.redis, ttl_s=10, owner="w")) as two,
    ):
        orders = ((one, TEXTS), (two, TEXTS[::-1]))
        threads = [
            threading.Thread(target=compute, args=(device.embedder, device, device.missing(*texts)))
            for device, texts in orders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.engine.stats.texts + two.engine.stats.texts == len(TEXTS)
        assert stored(fleet, input_keys(one.space().fingerprint, TEXTS)) == len(TEXTS)


def test_a_text_of_a_bulk_chunk_that_an_interactive_request_wants_is_computed_next(
    device: Device, fleet: Fleet
) -> None:
    """Its key is claimed by the chunk, but the request must not wait for the whole chunk."""
    missing = device.missing(*TEXTS)
    last = dict(list(missing.items())[-1:])
    asked = threading.Thread(target=lambda: device.embedder.compute(device.model, "", last, lane=Lane.INTERACTIVE))
    batches: list[bool] = []

    def after_batch(done: Computed) -> None:
        batches.append(next(iter(last)) in done.outcomes)
        if len(batches) == 1:
            asked.start()

    device.on_batch = lambda: time.sleep(0.2)
    compute(device.embedder, device, missing, terms=Terms(settled=after_batch))
    asked.join()
    assert batches.index(True) <= 2, "the batch after the one that ran"
    assert len(batches) == 6
