"""Log lines go to stderr, as text or JSON, semel's and the libraries' alike."""

import errno
import io
import json
import logging
import sys

import pytest
import structlog
from typing_extensions import override

from semel.log import configure_logs, get_log


def lines(written: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = written.readouterr()
    assert captured.out == "", "stdout is for results"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_json_line_has_the_part_the_level_the_time_and_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", fmt="json")
    get_log("cache", worker="w1").warning("something happened", key="ab")
    (line,) = lines(capsys)
    timestamp = line.pop("timestamp")
    assert str(timestamp).endswith("Z"), "JSON lines have times in UTC"
    assert line == {
        "event": "something happened", "level": "warning", "part": "cache", "worker": "w1", "key": "ab",
    }  # fmt: skip


def test_a_logger_that_was_made_before_the_configuration_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_log("early")
    configure_logs(level="info", fmt="json")
    log.info("late")
    assert [line["part"] for line in lines(capsys)] == ["early"]


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="warning", fmt="json")
    log = get_log("any")
    log.info("quiet")
    log.error("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_libraries_are_heard_from_warnings_on_in_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="debug", fmt="json")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble with %s", "x")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("trouble with x", "warning", "library")


def test_bound_values_of_the_context_are_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", fmt="json")
    structlog.contextvars.bind_contextvars(request="req_1")
    get_log("one").info("first")
    logging.getLogger("library").error("second")
    assert [line["request"] for line in lines(capsys)] == ["req_1", "req_1"]


def test_an_exception_is_one_json_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", fmt="json")
    try:
        raise ValueError("broken")
    except ValueError:
        get_log("any").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: broken" in str(line["exception"])


def test_text_is_for_people_and_has_no_colours_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", fmt="text")
    get_log("cache").info("something happened", key="ab")
    line = capsys.readouterr().err
    assert "something happened" in line
    assert "key=ab" in line
    assert "\x1b[" not in line


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", fmt="json")
    configure_logs(level="info", fmt="json")
    logging.getLogger("library").error("once")
    assert len(lines(capsys)) == 1


def test_a_line_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        @override
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        @override
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    configure_logs(level="info", fmt="text")
    get_log("engine").warning("a text makes the model fail")
    logging.getLogger("a.library").warning("a library warns")
