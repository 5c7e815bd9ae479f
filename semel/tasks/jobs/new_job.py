"""The row of a job: the first one of a new job, and how a row is read."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semel.tracing import annotate, traceparent
from semel.values.activation import Head
from semel.values.job import NOBODY, Counts, IfNoWorker, Job, JobStatus, Submitter
from semel.values.model import Space
from semel.values.text import ItemError, Lane
from semel.values.variant import Variant


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a submission decides about a job.

    Attributes:
        why: the reason for the device, shown to people.
        waits: whether no live worker serves its vector space now.
        traceparent: of the request that submits it; None takes this thread's own.
    """

    space: Space
    lane: Lane
    device: str
    why: str
    truncate: bool
    waits: bool = False
    if_no_worker: IfNoWorker = "wait"
    metadata: Mapping[str, str] = field(default_factory=dict)
    submitter: Submitter = NOBODY
    traceparent: str | None = None

    def row(self, *, now: float, window_s: float) -> dict[str, Any]:
        """The row of the job in state `validating`, without texts, under a new id.

        Args:
            now: Unix seconds.
            window_s: seconds until the job expires.
        """
        job_id = f"job_{uuid.uuid4().hex}"
        annotate(job=job_id)
        return {
            "id": job_id,
            "status": JobStatus.VALIDATING.value,
            "model": self.space.model,
            "prompt_name": self.space.prompt_name,
            "fingerprint": self.space.published.fingerprint,
            "variant": self.space.variant.to_json(),
            "variant_fingerprint": self.space.fingerprint if self.space.base else None,
            "kind": self.space.kind,
            "head": self.space.head.to_json(),
            "dim": self.space.dim,
            "lane": self.lane.value,
            "device": self.device,
            "first_device": self.device,
            "why": self.why,
            "waits": self.waits,
            "truncate": self.truncate,
            "if_no_worker": self.if_no_worker,
            "owner": self.submitter.owner,
            "share": self.submitter.share,
            "namespace": self.submitter.namespace,
            "private": self.submitter.private,
            "turn_at": now,
            "touched_at": now,
            "created_at": now,
            "expires_at": now + window_s,
            "metadata_json": json.dumps(dict(self.metadata)),
            "traceparent": self.traceparent or traceparent(),
            **dict.fromkeys(("total", "chunks", "chunks_done", *Counts.__dataclass_fields__), 0),
        }


def job_of(row: Any) -> Job:
    """The job that a row of `jobs` represents."""
    of_older_api = row.kind == "embed" and row.dim == 1  # which knows no kinds, while versions are replaced
    copied = {name: getattr(row, name) for name in Job.__dataclass_fields__ if hasattr(row, name)}
    return Job(
        **{
            **copied,
            "status": JobStatus(row.status),
            "lane": Lane(row.lane),
            "counts": Counts(**{name: getattr(row, name) for name in Counts.__dataclass_fields__}),
            "error": ItemError(*json.loads(row.error_json)) if row.error_json else None,
            "metadata": json.loads(row.metadata_json),
            "variant": Variant.from_json(row.variant),
            "kind": "cross-encoder" if of_older_api else row.kind,
            "head": Head.from_json(row.head),
        }
    )
