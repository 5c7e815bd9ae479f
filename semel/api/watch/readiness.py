"""Whether every part that semel needs is available."""

from collections.abc import Callable, Mapping

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
    """Ping every part; a part that does not answer is reported with its error.

    Args:
        pings: name of a part → a call that raises SemelError when it does not answer.
    """
    parts = {}
    for name, ping in pings.items():
        try:
            ping()
            parts[name] = "ok"
        except SemelError as error:
            parts[name] = str(error)
    return Readiness(ready=all(state == "ok" for state in parts.values()), parts=parts)
