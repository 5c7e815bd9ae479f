"""Which device is chosen among several, and the reason that is shown for it."""

import pytest

from semel.values.device import KINDS, ORDERS, Measured, best_of, device_kind


def measured(*, texts_per_s: float, latency_ms: float) -> Measured:
    return Measured("minilm", texts_per_s=texts_per_s, latency_ms=latency_ms)


@pytest.mark.parametrize(("device", "kind"), [("cuda:1", "cuda"), ("cuda", "cuda"), ("vulkan:0", "vulkan")])
def test_the_kind_of_a_device_is_its_name_without_the_number(device: str, kind: str) -> None:
    assert device_kind(device) == kind


def test_every_use_case_orders_every_kind() -> None:
    for use_case, order in ORDERS.items():
        assert sorted(order) == sorted(KINDS), use_case


@pytest.mark.parametrize(
    ("use_case", "best"), [("auto", "mlx"), ("high_throughput", "cuda:0"), ("cross_platform", "vulkan:0")]
)
def test_without_measurements_the_use_case_decides(use_case: str, best: str) -> None:
    names = ["cpu", "vulkan:0", "cuda:0", "mlx"]
    assert best_of(names, use_case=use_case, measured={})[0] == best  # type: ignore[arg-type]


def test_the_reason_names_the_order_and_the_use_case() -> None:
    assert best_of(["cpu"], use_case="auto", measured={})[1] == "the first available of mlx, cuda, vulkan, mps, cpu"
    _, why = best_of(["cpu"], use_case="low_latency", measured={})
    assert why == "for low_latency, the first available of mlx, cuda, cpu, mps, vulkan"


def test_the_fastest_measured_device_is_chosen_whatever_the_order() -> None:
    figures = {"cuda:0": measured(texts_per_s=900, latency_ms=1), "cpu": measured(texts_per_s=1200, latency_ms=5)}
    best, why = best_of(["cuda:0", "cpu"], use_case="auto", measured=figures)
    assert (best, why) == ("cpu", "the fastest measured here: cuda:0 900 texts/s, cpu 1,200 texts/s")


def test_low_latency_compares_latencies() -> None:
    figures = {"cuda:0": measured(texts_per_s=9000, latency_ms=7), "cpu": measured(texts_per_s=100, latency_ms=2.5)}
    best, why = best_of(["cuda:0", "cpu"], use_case="low_latency", measured=figures)
    assert (best, why) == ("cpu", "the lowest latency measured here: cuda:0 7.0 ms, cpu 2.5 ms")


def test_a_measurement_of_only_some_devices_decides_nothing() -> None:
    figures = {"cpu": measured(texts_per_s=1200, latency_ms=5)}
    best, why = best_of(["cuda:0", "cpu"], use_case="auto", measured=figures)
    assert best == "cuda:0"
    assert "measured" not in why


def test_the_order_of_the_names_does_not_matter() -> None:
    names = ["cpu", "mps", "cuda:0"]
    assert best_of(names, use_case="auto", measured={}) == best_of(names[::-1], use_case="auto", measured={})
