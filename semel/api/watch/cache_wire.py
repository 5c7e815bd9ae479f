"""The JSON of the cache's contents."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ImportedObject(BaseModel):
    """Vectors that were stored, and vectors that were skipped because the cache already had one."""

    stored: int
    present: int
    compared: int = Field(default=0, description="Texts that were computed again, and whose vectors were the same.")


class SpaceObject(BaseModel):
    """A vector space in the cache. Times are Unix seconds."""

    fingerprint: str
    model: str
    prompt_name: str
    weights: str = Field(description="SHA-256 of the weights; identifies the revision of the model.")
    precision: str
    dim: int
    entries: int
    bytes: int
    oldest_at: float | None
    newest_at: float | None
    used_at: float | None = Field(description="When an API server last looked up a text.")
    lookups: int
    hits: int
    saved_s: float = Field(description="Device time that the hits saved.")


class GrowthObject(BaseModel):
    """Vectors of a space that were stored in the time span that begins at `at` (Unix seconds) and are still cached."""

    fingerprint: str
    at: float
    entries: int


class UseObject(BaseModel):
    """Look-ups in all spaces, including spaces without vectors."""

    lookups: int
    hits: int
    saved_s: float = Field(description="Device time that the hits saved.")


class CacheObject(BaseModel):
    """What the cache holds, at most a few seconds old unless counting is slow."""

    object: Literal["cache"] = "cache"
    totals: UseObject
    spaces: list[SpaceObject]
    growth: list[GrowthObject]
    span_s: float = Field(description="Length of the time spans in `growth`.")


class PruneRequest(BaseModel):
    """Which vectors to delete: those that meet every condition. Give at least one condition."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"older_than_s": 7776000, "dry_run": True}})

    max_bytes: int | None = Field(default=None, ge=0, le=2**62, description="Keep the newest vectors, up to this size.")
    older_than_s: float | None = Field(
        default=None, ge=0, description="Only vectors that were stored longer ago than this."
    )
    fingerprint: str | None = Field(default=None, description="Only vectors of this space; in hex.")
    dry_run: bool = Field(default=True, description="Only count the vectors. Set false to delete them.")


class PrunedObject(BaseModel):
    """How many vectors were deleted, or would be in a dry run."""

    object: Literal["pruned"] = "pruned"
    entries: int
    dry_run: bool
