"""Which device pool gets a piece of work, and the reason that a job shows."""

from dataclasses import replace

import pytest

from semel.errors import UnavailableError, UnknownDeviceError, UnknownModelError
from semel.tasks.queue.router import Route, Router
from semel.values.device import KINDS, Measured
from semel.values.variant import Variant
from tests.support.fleet import OTHER, SPACE, Fleet, card


@pytest.fixture
def router(fleet: Fleet) -> Router:
    """Some time ago a worker on `mlx` served the model."""
    fleet.catalog.publish([SPACE], device="mlx")
    return Router(fleet.roster, fleet.catalog)


def test_the_preferred_pool_of_those_alive_gets_the_work(router: Router, fleet: Fleet) -> None:
    for device in ("cpu", "cuda:1", "cuda:0"):
        fleet.join(device)
    route = router.route(SPACE)
    assert (route.device, route.waits, route.workers) == ("cuda", False, 2)
    assert route.why.startswith("cuda: ")
    assert route.why.endswith("2 live workers with m")


def test_a_variant_goes_to_the_workers_of_its_model(router: Router, fleet: Fleet) -> None:
    fleet.join("cuda:0")
    assert router.route(SPACE.with_variant(Variant(max_tokens=5, normalize=False))) == router.route(SPACE)


def test_the_use_case_decides_among_the_pools(fleet: Fleet) -> None:
    for device in ("cpu", "mps"):
        fleet.join(device)
    assert Router(fleet.roster, fleet.catalog, use_case="low_latency").route(SPACE).device == "cpu"
    assert Router(fleet.roster, fleet.catalog).route(SPACE).device == "mps"


def test_measurements_of_the_workers_decide_before_the_order(router: Router, fleet: Fleet) -> None:
    fleet.join("mps", measured=Measured("m", 10.0, 1.0))
    fleet.join("cpu", measured=Measured("m", 90.0, 1.0))
    assert router.route(SPACE).device == "cpu"


@pytest.mark.parametrize("wanted", ["cpu", "cpu:0"])
def test_a_device_that_was_asked_for_is_taken(router: Router, fleet: Fleet, wanted: str) -> None:
    for device in ("cpu", "cuda:0"):
        fleet.join(device)
    assert router.route(SPACE, wanted=wanted) == Route("cpu", "cpu: requested, 1 live worker with m", workers=1)


def test_a_worker_with_another_space_or_name_does_not_count(router: Router, fleet: Fleet) -> None:
    fleet.join("cuda:0", OTHER)
    fleet.join("mps", replace(SPACE, model="alias"))
    fleet.join("cpu", SPACE)
    assert router.route(SPACE).device == "cpu"


def test_a_worker_that_has_just_started_is_found(router: Router, fleet: Fleet) -> None:
    assert fleet.roster.recently_live() == []
    fleet.roster.beat(card("cpu", SPACE))
    assert router.route(SPACE).device == "cpu"


def test_without_a_live_worker_the_work_waits_for_the_device_that_served_it_last(router: Router) -> None:
    assert router.route(SPACE) == Route("mlx", "mlx: no live worker serves m; the job waits for one", waits=True)


def test_work_for_a_device_without_workers_waits_there_and_not_elsewhere(router: Router, fleet: Fleet) -> None:
    fleet.join("cpu")
    route = router.route(SPACE, wanted="cuda")
    assert (route.device, route.waits) == ("cuda", True)


def test_work_that_cannot_wait_is_refused_with_the_command_that_starts_a_worker(router: Router) -> None:
    with pytest.raises(UnavailableError, match="no live worker serves 'm'; start one: semel worker --device mlx"):
        router.route(SPACE, must_live=True)


def test_the_refusal_names_the_device_that_was_asked_for(router: Router, fleet: Fleet) -> None:
    fleet.join("cpu")
    with pytest.raises(UnavailableError, match=r"serves 'm' on cuda; start one: semel worker --device cuda"):
        router.route(SPACE, wanted="cuda", must_live=True)


def test_an_unknown_device_is_refused_with_the_known_ones(router: Router) -> None:
    with pytest.raises(UnknownDeviceError, match=f"unknown device 'tpu' .known: auto, {', '.join(KINDS)}"):
        router.route(SPACE, wanted="tpu")


def test_a_model_that_no_worker_ever_served_is_unknown(router: Router) -> None:
    with pytest.raises(UnknownModelError, match="'never'"):
        router.route(replace(SPACE, model="never"))


def test_without_redis_no_route_is_guessed(router: Router, fleet: Fleet) -> None:
    fleet.server.connected = False
    with pytest.raises(UnavailableError, match="Redis"):
        router.route(SPACE)
