"""Whether every part that semel needs is available."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel

from semel.errors import SemelError


class Readiness(BaseModel):
    """The result of all pings: `parts` maps each part to "ok" or to what is wrong."""

    ready: bool
    parts: dict[str, str]

    def without_reasons(self) -> "Readiness":
        """The same without the reasons, which name hosts and databases."""
        parts = {part: state if state == "ok" else "not ok" for part, state in self.parts.items()}
        return Readiness(ready=self.ready, parts=parts)


def readiness(pings: Mapping[str, Callable[[], None]]) -> Readiness:
    """Ping all parts at once; one that does not answer is reported with its error.

    Args:
        pings: name of a part → a call that raises SemelError when it does not answer.
    """

    def state_of(ping: Callable[[], None]) -> str:
        try:
            ping()
        except SemelError as error:
            return str(error)
        return "ok"

    with ThreadPoolExecutor(max(1, len(pings)), thread_name_prefix="ping") as threads:
        parts = dict(zip(pings, threads.map(state_of, pings.values()), strict=True))
    return Readiness(ready=all(state == "ok" for state in parts.values()), parts=parts)
