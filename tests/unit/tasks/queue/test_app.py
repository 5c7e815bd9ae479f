"""The Celery application, on a broker in memory."""

import pytest
from kombu.exceptions import EncodeError

from semel.tasks.queue.app import TASK_THREADS, make_app
from semel.tasks.queue.dispatch import MAX_WINDOW


def test_a_worker_consumes_both_lanes_of_its_device_and_interactive_first() -> None:
    app = make_app("memory://", device="cuda:1")
    assert [queue.name for queue in app.conf.task_queues] == ["interactive.cuda", "bulk.cuda"]
    assert app.conf.broker_transport_options["queue_order_strategy"] == "priority"


def test_a_sender_consumes_nothing() -> None:
    assert make_app("memory://").conf.task_queues == []


def test_a_message_is_json_in_the_queue_that_was_named() -> None:
    app = make_app("memory://")
    app.send_task("semel.embed_chunk", args=["job", 3], queue="bulk.of-this-test", ignore_result=True)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("bulk.of-this-test")
    assert message.content_type == "application/json"
    assert message.payload[0] == ["job", 3]


def test_what_is_no_json_is_not_sent() -> None:
    with pytest.raises(EncodeError):
        make_app("memory://").send_task("semel.embed_chunk", args=[object()], queue="bulk.cpu")
    assert make_app("memory://").conf.accept_content == ["json"]


def test_a_message_is_kept_until_its_task_ends() -> None:
    conf = make_app("memory://", device="cpu").conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost


def test_an_interactive_request_finds_a_thread_while_the_window_of_chunks_is_full() -> None:
    assert make_app("memory://", device="cpu").conf.worker_concurrency == TASK_THREADS
    assert TASK_THREADS > MAX_WINDOW


def test_task_events_are_sent_only_if_flower_is_wanted() -> None:
    assert not make_app("memory://", device="cpu").conf.worker_send_task_events
    assert make_app("memory://", device="cpu", events=True).conf.worker_send_task_events
