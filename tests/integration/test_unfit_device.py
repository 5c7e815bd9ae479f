"""A worker whose device computes wrong numbers stops, and its card reports the reason."""

import pytest
import redis

from semel.backends.devices import verify as verify_module
from semel.errors import BackendError
from semel.settings import Settings
from semel.tasks.fleet.roster import Roster
from semel.tasks.worker.worker import Worker


def test_a_failed_self_test_is_reported_with_its_reason(
    tmp_path: object, redis_port: int, redis_client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify_module._RUNS, "cpu", lambda _device, left, right: left @ right.T)  # no softmax
    settings = Settings(home=tmp_path, redis_url=f"redis://127.0.0.1:{redis_port}/0")  # type: ignore[arg-type]
    worker = Worker(settings, device="cpu")
    with pytest.raises(BackendError, match="cpu failed its self-test: its numbers are off by"):
        worker.run()
    roster = Roster(redis_client)
    assert roster.live() == []
    (card,) = roster.failed()
    assert (card.state, card.device) == ("failed", "cpu")
    assert card.why.startswith("cpu failed its self-test")
    roster.forget_failed(card)
    assert roster.failed() == []
