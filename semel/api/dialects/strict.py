"""Requests that refuse what they do not honour."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

HARMLESS = frozenset({"user", "metadata", "priority", "request_id", "client_name", "safety_identifier"})
"""Fields that clients send and that change no number: who asks, and how urgently. They are accepted and not used."""


class StrictRequest(BaseModel):
    """A request whose unknown fields are an error: one that was ignored would give other numbers than were asked for.

    A field with the value null is one that the client did not set.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_unset(cls, given: Any) -> Any:
        if not isinstance(given, dict) or (given.keys() <= cls.model_fields.keys() and None not in given.values()):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None and (name in cls.model_fields or name not in HARMLESS)
        }
