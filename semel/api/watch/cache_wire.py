"""The contents of the cache on the wire."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ImportedObject(BaseModel):
    """How many vectors were stored, and for how many the cache had one already and kept it."""

    stored: int
    present: int


class SpaceObject(BaseModel):
    """A vector space in the cache. Times are Unix seconds."""

    fingerprint: str
    model: str
    prompt_name: str
    weights: str = Field(description="SHA-256 of the weights: which revision of the model this is.")
    precision: str
    dim: int
    entries: int
    bytes: int
    oldest_at: float | None
    newest_at: float | None
    used_at: float | None = Field(description="When an API last looked a text up.")
    lookups: int
    hits: int
    saved_s: float = Field(description="Device time that the hits would have cost.")


class GrowthObject(BaseModel):
    """Vectors of a space that are in the cache and were stored in the span that begins at `at`."""

    fingerprint: str
    at: float
    entries: int


class UseObject(BaseModel):
    """Look-ups in all spaces, those without a vector included."""

    lookups: int
    hits: int
    saved_s: float = Field(description="Device time that the hits would have cost.")


class CacheObject(BaseModel):
    """What the cache holds, at most some seconds old."""

    object: Literal["cache"] = "cache"
    totals: UseObject
    spaces: list[SpaceObject]
    growth: list[GrowthObject]
    span_s: float = Field(description="Length of the spans of `growth`.")


class PruneRequest(BaseModel):
    """Which vectors to delete: those that meet every condition. One at the least."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"older_than_s": 7776000, "dry_run": True}})

    max_bytes: int | None = Field(default=None, ge=0, le=2**62, description="Keep this much, the newest.")
    older_than_s: float | None = Field(default=None, ge=0, description="What was stored longer ago than this.")
    fingerprint: str | None = Field(default=None, description="In this space alone; in hex.")
    dry_run: bool = Field(default=True, description="Count only. Say false to delete.")


class PrunedObject(BaseModel):
    object: Literal["pruned"] = "pruned"
    entries: int
    dry_run: bool
