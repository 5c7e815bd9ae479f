"""The choice among the device pools that serve a space."""

import pytest

from semel.tasks.fleet.pools import best_pool
from semel.values.device import Measured, UseCase
from tests.support.fleet import SPACE, card


def measured(texts_per_s: float, latency_ms: float = 1.0, *, model: str = "m") -> Measured:
    return Measured(model, texts_per_s, latency_ms)


@pytest.mark.parametrize(
    ("use_case", "expected"),
    [("auto", "cuda"), ("low_latency", "cuda"), ("memory_efficient", "cpu"), ("cross_platform", "vulkan")],
)
def test_without_measurements_the_use_case_decides(use_case: UseCase, expected: str) -> None:
    cards = [card(device, SPACE) for device in ("cpu", "vulkan:0", "cuda:1")]
    kind, why = best_pool(cards, model="m", use_case=use_case)
    assert kind == expected
    assert why


def test_measurements_override_the_order() -> None:
    cards = [card("cuda:0", SPACE, measured=measured(100.0)), card("cpu", SPACE, measured=measured(900.0))]
    assert best_pool(cards, model="m", use_case="auto")[0] == "cpu"


def test_for_low_latency_the_latency_decides_and_not_the_rate() -> None:
    cards = [
        card("cuda:0", SPACE, measured=measured(900.0, 5.0)),
        card("mps", SPACE, measured=measured(100.0, 2.0)),
    ]
    assert best_pool(cards, model="m", use_case="low_latency")[0] == "mps"
    assert best_pool(cards, model="m", use_case="high_throughput")[0] == "cuda"


def test_a_measurement_with_another_model_does_not_count() -> None:
    cards = [
        card("cuda:0", SPACE, measured=measured(100.0)),
        card("cpu", SPACE, measured=measured(900.0, model="small")),
    ]
    assert best_pool(cards, model="m", use_case="auto")[0] == "cuda"


def test_a_measurement_counts_for_the_build_of_the_model_that_a_device_serves() -> None:
    cards = [card("cuda:0", SPACE, measured=measured(100.0)), card("cpu", SPACE, measured=measured(900.0))]
    assert best_pool(cards, model="m@cpu", use_case="auto")[0] == "cpu"


def test_an_imitated_gpu_gets_work_only_when_there_is_nothing_else() -> None:
    imitated, real = card("vulkan:0", SPACE, software=True), card("cpu", SPACE)
    assert best_pool([imitated, real], model="m", use_case="cross_platform")[0] == "cpu"
    assert best_pool([imitated], model="m", use_case="cross_platform")[0] == "vulkan"
