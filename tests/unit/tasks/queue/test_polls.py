"""When the consumer of a process last had an answer from its queues."""

from queue import Empty
from typing import Any

import pytest
from kombu.transport import redis, virtual

from semel.tasks.queue import transport
from semel.tasks.queue.transport import Channel, Polls, QoS


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Polls:
    """The polls of this process, the last one a minute ago."""
    made = Polls()
    made._at -= 60
    monkeypatch.setattr(transport, "POLLS", made)
    return made


def answered(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Any:
    """What a channel makes of an answer to its poll."""

    def read(_self: Any, **_options: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(redis.Channel, "_brpop_read", read)
    return Channel._brpop_read(Channel.__new__(Channel))


def test_a_message_is_an_answer(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(monkeypatch, True)
    assert polls.age_s < 5


def test_that_nothing_waits_is_an_answer(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Empty):
        answered(monkeypatch, Empty())
    assert polls.age_s < 5


def test_a_lost_connection_is_none(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError):
        answered(monkeypatch, ConnectionError())
    assert polls.age_s >= 60


@pytest.mark.parametrize(("can", "noted"), [(True, False), (False, True)])
def test_a_worker_that_has_all_it_may_hold_need_not_ask(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, can: bool, noted: bool
) -> None:
    monkeypatch.setattr(virtual.QoS, "can_consume", lambda _self: can, raising=False)
    assert QoS.can_consume(QoS.__new__(QoS)) is can
    assert (polls.age_s < 5) is noted
