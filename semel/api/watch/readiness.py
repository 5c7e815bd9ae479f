"""Whether every part answers."""

from semel.api.dialects.openai import Readiness
from semel.api.services import Services
from semel.errors import SemelError


def readiness(services: Services) -> Readiness:
    """The sum of the pings; a part that does not answer says why."""
    parts = {}
    for name, ping in services.pings.items():
        try:
            ping()
            parts[name] = "ok"
        except SemelError as error:
            parts[name] = str(error)
    return Readiness(ready=all(state == "ok" for state in parts.values()), parts=parts)
