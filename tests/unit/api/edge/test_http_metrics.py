"""What is told of an answer, whoever gives it."""

import asyncio
from typing import Any

import pytest

from semel.api.edge.http_metrics import HttpMetrics


def test_an_error_that_nobody_foresaw_is_counted() -> None:
    told: list[tuple[str, str, int]] = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("nobody foresaw this")

    measured = HttpMetrics(failing, answered=lambda *one: told.append(one[:3]))
    with pytest.raises(RuntimeError):
        asyncio.run(measured({"type": "http", "method": "GET"}, None, None))
    assert told == [("GET", "none", 500)]
