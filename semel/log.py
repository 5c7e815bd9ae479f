"""Structured logs: one line per event, with the ids that belong to it."""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from semel.tracing import add_trace_ids


def get_log(name: str, **bound: Any) -> Any:
    """A logger whose lines carry `part=name` and the bound values; it may be created before `configure_logs`."""
    return structlog.get_logger(part=name, **bound)


class _Lossy:
    """A stream that drops what cannot be written: a full disk must not end the thread that has something to report."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError):
            self._stream.flush()


def configure_logs(*, level: str, fmt: str) -> None:
    """Write the log lines of semel and of its libraries to stderr in one format; lines for a full disk are dropped.

    Args:
        level: the least severe level of semel's own lines; libraries log from `warning` on.
        fmt: `text` or `json`.
    """
    stream = _Lossy(sys.stderr)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        add_trace_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if fmt == "text" else "iso", utc=fmt == "json"),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback,
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            pad_level=False,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
