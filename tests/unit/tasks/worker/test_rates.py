"""Rates of models are kept for the next worker on the device."""

from pathlib import Path

import pytest

from semel.backends.submission import ModelStats
from semel.tasks.fleet.card import ModelRate
from semel.tasks.worker import rates as rates_module
from semel.tasks.worker.rates import KeptRates

WEIGHTS = {"m": "w1"}
DONE = {"m": ModelStats(texts=100, tokens=1500, busy_s=3.0)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rates.json"


def test_a_model_that_never_computed_has_no_rate(file: Path) -> None:
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == {}


def test_what_was_measured_is_known_after_a_restart(file: Path) -> None:
    first = KeptRates(file, "cpu")
    assert first.update(DONE, WEIGHTS) == {"m": ModelRate(500.0, 15.0)}
    first.write()
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == {"m": ModelRate(500.0, 15.0)}


def test_the_first_batches_after_a_restart_say_less_than_the_run_before(file: Path) -> None:
    first = KeptRates(file, "cpu")
    first.update(DONE, WEIGHTS)
    first.write()
    again = KeptRates(file, "cpu")
    slow = {"m": ModelStats(texts=1, tokens=15, busy_s=1.0)}
    assert again.update(slow, WEIGHTS) == {"m": ModelRate(500.0, 15.0)}
    again.write()
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == {"m": ModelRate(500.0, 15.0)}, "too little to keep"
    more = {"m": ModelStats(texts=100, tokens=1000, busy_s=4.0)}
    assert again.update(more, WEIGHTS) == {"m": ModelRate(250.0, 10.0)}


def test_a_first_rate_follows_what_is_measured_until_it_is_enough(file: Path) -> None:
    rates = KeptRates(file, "cpu")
    for busy_s, tokens in ((0.5, 10), (1.0, 400)):
        stats = {"m": ModelStats(texts=10, tokens=tokens, busy_s=busy_s)}
        assert rates.update(stats, WEIGHTS)["m"].tokens_per_s == tokens / busy_s
    rates.write()
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == {}


def test_a_batch_without_tokens_has_no_rate(file: Path) -> None:
    assert KeptRates(file, "cpu").update({"m": ModelStats(texts=1, tokens=0, busy_s=9.0)}, WEIGHTS) == {}


def test_a_rate_is_that_of_the_same_weights_on_the_same_device(file: Path) -> None:
    first = KeptRates(file, "cpu")
    first.update(DONE, WEIGHTS)
    first.write()
    assert KeptRates(file, "cpu").update({}, {"m": "w2"}) == {}
    assert KeptRates(file, "cuda:0").update({}, WEIGHTS) == {}


def test_workers_of_several_devices_share_the_file(file: Path) -> None:
    for device in ("cpu", "mps"):
        rates = KeptRates(file, device)
        rates.update(DONE, WEIGHTS)
        rates.write()
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == KeptRates(file, "mps").update({}, WEIGHTS) != {}


def test_a_worker_that_is_killed_loses_a_minute_at_most(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = KeptRates(file, "cpu")
    rates.update(DONE, WEIGHTS)
    assert not file.exists()
    monkeypatch.setattr(rates_module, "_WRITE_EVERY_S", 0.0)
    rates.update(DONE, WEIGHTS)
    assert file.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"cpu": 5}', '{"cpu": {"m": {"weights": "w1"}}}', '{"cpu": {"m": 1}}'])
def test_a_file_of_another_version_is_as_none(file: Path, content: str) -> None:
    file.write_text(content)
    assert KeptRates(file, "cpu").update({}, WEIGHTS) == {}


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    rates = KeptRates(tmp_path / "no folder" / "rates.json", "cpu")
    assert rates.update(DONE, WEIGHTS)
    rates.write()
