"""What a worker publishes about itself."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from semel.errors import BackendError
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Message, Meter
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.offers import Offers
from semel.tasks.worker.presence import Presence
from semel.tasks.worker.rates import KeptRates
from semel.values.device import DeviceInfo, Measured
from semel.values.text import Lane, Outcome
from tests.support.computing import Device
from tests.support.fleet import Fleet, requests_of
from tests.support.processes import wait_until

MEASURED = Measured("m", texts_per_s=5.0, latency_ms=1.0)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def offers(device: Device) -> Offers:
    made = Offers()
    made.serve(device.models.available(["m"]))
    return made


@pytest.fixture
def presence(fleet: Fleet, device: Device, meter: Meter, offers: Offers, tmp_path: Path) -> Presence:
    return Presence(
        fleet.roster,
        offers,
        device.models,
        device.engine,
        meter,
        worker_id="vulkan:1@host-7",
        about=DeviceInfo("vulkan:1", usable=True, why="a GPU with 24 GB", software=True),
        measured=MEASURED,
        rates=KeptRates(tmp_path / "rates.json", "vulkan:1"),
        progress=lambda: [("job", 3, 12)],
        held=held_requests(fleet),
    )


def held_requests(fleet: Fleet) -> HeldRequests:
    held = HeldRequests(fleet.redis, worker_id="vulkan:1@host-7")
    held.take(requests_of("r1", "r2"))
    return held


def published(fleet: Fleet) -> WorkerCard:
    (card,) = fleet.roster.live()
    return card


def test_a_worker_is_on_the_roster_before_its_model_is_loaded(presence: Presence, fleet: Fleet, device: Device) -> None:
    presence.beat()
    card = published(fleet)
    assert (card.id, card.device, card.pid, card.state) == ("vulkan:1@host-7", "vulkan:1", os.getpid(), "loading")
    assert (card.about, card.software, card.measured) == ("a GPU with 24 GB", True, MEASURED)
    assert (card.loaded, card.dtype, card.load_s, card.texts_per_s) == ([], "", 0.0, 0.0)
    assert card.models == ["m"]
    assert card.spaces == [device.space(prompt).fingerprint.hex() for prompt in ("", "query")]
    assert card.serves("m", device.space("query").fingerprint)


def test_the_card_shows_what_was_loaded_and_done(
    presence: Presence, fleet: Fleet, device: Device, meter: Meter
) -> None:
    device.embedder.compute(device.model, "", device.missing("one", "two words"), lane=Lane.BULK)
    meter.record(Message("m", None, 0.0, {Outcome.COMPUTED: 2, Outcome.HIT: 1}))
    presence.state = "ready"
    presence.beat()
    card = published(fleet)
    assert (card.state, card.loaded, card.dtype, card.progress) == ("ready", ["m"], "float32", [["job", 3, 12]])
    assert (card.work.requests, card.work.texts, card.work.hits) == (1, 3, 1)
    assert (card.work.computed, card.work.tokens) == (2, 3)
    assert card.texts_per_s > 0
    assert card.memory_bytes > 0


def test_a_heartbeat_offers_a_withdrawn_model_again(
    presence: Presence, fleet: Fleet, device: Device, offers: Offers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.tasks.worker.offers.REFUSED_S", -1.0)
    offers.withdraw("m", device.space().fingerprint)
    presence.beat()
    assert published(fleet).models == ["m"]


def test_a_failure_takes_the_worker_off_the_roster_and_keeps_the_reason(presence: Presence, fleet: Fleet) -> None:
    presence.beat()
    presence.report_failed(BackendError("wrong numbers"))
    assert fleet.roster.live() == []
    assert [(card.state, card.why) for card in fleet.roster.failed()] == [("failed", "wrong numbers")]
    presence.forget_failed()
    assert fleet.roster.failed() == []


def test_a_worker_that_signs_off_is_gone_at_once(presence: Presence, fleet: Fleet) -> None:
    presence.beat()
    presence.sign_off()
    assert fleet.roster.live() == []


def test_a_worker_ends_without_redis_all_the_same(presence: Presence, fleet: Fleet) -> None:
    presence.beat()
    fleet.server.connected = False
    with pytest.raises(redis.RedisError):  # the duty that sends it goes on trying
        presence.beat()
    presence.report_failed(BackendError("wrong numbers"))
    presence.forget_failed()
    presence.sign_off()


@pytest.mark.parametrize("leave", [Presence.sign_off, lambda presence: presence.report_failed(BackendError("lost"))])
def test_a_late_heartbeat_does_not_bring_a_worker_back(
    presence: Presence, fleet: Fleet, leave: Callable[[Presence], None]
) -> None:
    presence.beat()
    leave(presence)
    presence.beat()
    assert fleet.roster.live() == []


def test_a_worker_beats_while_a_block_runs_and_has_left_afterwards(presence: Presence, fleet: Fleet) -> None:
    with presence.beating():
        wait_until(lambda: [card.state for card in fleet.roster.live()] == ["loading"])
    assert fleet.roster.live() == []
