"""The card that a worker publishes: what it means, and cards of other versions."""

import json

from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Work
from semel.values.device import Measured
from tests.support.fleet import OTHER, SPACE, card


def test_a_card_comes_back_from_json_as_it_was() -> None:
    full = card(
        "cuda:1",
        SPACE,
        OTHER,
        state="loading",
        software=True,
        gpu_utilization=0.5,
        measured=Measured("m", texts_per_s=100.0, latency_ms=2.5),
        work=Work(requests=2, texts=7, recent_ms=[1.5, 2.0], last_request_at=12.0),
    )
    assert WorkerCard.from_json(full.to_json()) == full
    assert WorkerCard.from_json(full.to_json().encode()) == full, "Redis returns bytes"


def test_a_card_of_a_newer_version_may_have_more_fields() -> None:
    plain = card("cpu", SPACE)
    values = json.loads(plain.to_json())
    values["colour"] = "red"
    values["work"]["colours"] = 3
    assert WorkerCard.from_json(json.dumps(values)) == plain


def test_a_card_of_an_older_version_may_lack_fields() -> None:
    values = json.loads(card("cpu", SPACE, software=True, work=Work(texts=3)).to_json())
    for name in ("software", "measured", "work", "loaded"):
        del values[name]
    older = WorkerCard.from_json(json.dumps(values))
    assert (older.software, older.measured, older.work, older.loaded) == (False, None, Work(), [])
    assert older.serves("m", SPACE.fingerprint)


def test_a_worker_serves_a_space_only_under_the_name_of_the_model_and_only_that_space() -> None:
    worker = card("cpu", SPACE)
    assert worker.serves("m", SPACE.fingerprint)
    assert not worker.serves("another", SPACE.fingerprint)
    assert not worker.serves("m", OTHER.fingerprint)
