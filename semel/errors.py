"""Every error that semel raises on purpose, in one tree.

    SemelError                    exit code 1, HTTP 500
    ├── BadInputError             the input cannot be used (HTTP 400)
    │   ├── InvalidTextError      a text that is empty, not a string or not Unicode
    │   ├── TextTooLongError      a text above the model's limit, while truncation is not allowed
    │   ├── UnknownModelError     a model name that is neither configured nor served (HTTP 404)
    │   ├── UnknownDeviceError    a device that this machine or pool does not have
    │   └── BodyTooLargeError     a request body above its limit (HTTP 413)
    ├── UnauthorizedError         no API key, or an unknown one (HTTP 401)
    ├── ForbiddenError            an API key without the required scope (HTTP 403)
    │   ├── ForeignPageError      a request from another website's page, to a server without API keys
    │   └── QuotaExceededError    an API key that may keep no more on disk
    ├── NotFoundError             an unknown id (HTTP 404)
    ├── ConflictError             the state of a job, batch or file does not allow the request (HTTP 409)
    ├── OverloadedError           more work waits than is allowed (HTTP 429)
    ├── UnavailableError          a service that semel needs does not answer (HTTP 503)
    │   └── TimedOutError         it did not answer in time (HTTP 504)
    ├── StorageFullError          the database has no room left (HTTP 507)
    ├── SchemaError               the database belongs to another version of semel
    ├── ModelLoadError            a model that cannot be loaded on this machine
    │   └── FingerprintError      the weights are not the ones that the model's name stands for
    ├── InvalidVectorError        NaN, zero or wrong size: never stored
    └── BackendError              the device failed
        ├── DeviceMemoryError     the device ran out of memory for this batch
        └── DeviceLostError       the device failed permanently, whatever the text

Every message states what is wrong, where, and what to do about it.
"""

import re
from typing import ClassVar, Self


class SemelError(Exception):
    """The root of the tree; an HTTP answer carries its `status` and `code`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    @classmethod
    def revived(cls, message: str, *, retry_after_s: float | None = None) -> Self:  # noqa: ARG003  # for subclasses
        """Rebuild an error of this class from its message; a subclass also sets its own attributes."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        return error


class BadInputError(SemelError):
    """The input cannot be used; the message names the place and the reason."""

    status = 400
    code = "invalid_input"


class InvalidTextError(BadInputError):
    """A text that cannot be embedded.

    Args:
        index: position in the caller's list, from 0.
        why: what is wrong with the text.
    """

    code = "invalid_text"

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"text {index} {why}")
        self.index: int | None = index
        self.why = why

    @classmethod
    def revived(cls, message: str, *, retry_after_s: float | None = None) -> Self:
        """`index` is None when the message does not name a position."""
        error = super().revived(message, retry_after_s=retry_after_s)
        named = re.match(r"text (\d+) (.*)", message, re.DOTALL)
        error.index, error.why = (int(named[1]), named[2]) if named else (None, message)
        return error


class TextTooLongError(BadInputError):
    """A text above the model's limit, while truncation is not allowed."""

    code = "text_too_long"

    def __init__(self) -> None:
        super().__init__("the text is longer than the model reads; shorten or split it, or allow truncation")


class UnknownModelError(BadInputError):
    """A model name that is neither configured nor served.

    Args:
        name: the name in the request.
        known: the names that exist.
    """

    status = 404
    code = "model_not_found"

    def __init__(self, name: str, known: list[str]) -> None:
        names = ", ".join(sorted(known)) or "none yet"
        super().__init__(
            f"there is no model named {name!r} (known: {names}); add [models.{name}] to semel.toml "
            "and start a worker with it"
        )


class EmptyInputError(BadInputError):
    """A list of texts without a text."""

    code = "empty_input"


class TooManyTextsError(BadInputError):
    """More texts than one request takes."""

    code = "too_many_texts"


class UnknownPromptError(BadInputError):
    """A prompt that the model does not have.

    Args:
        name: the name in the request.
        known: the names of the prompts that the model has.
    """

    code = "prompt_not_found"

    def __init__(self, model: str, name: str, known: list[str]) -> None:
        super().__init__(f"model {model!r} has no prompt {name!r} (it has: {', '.join(sorted(known)) or 'none'})")


class UnknownDeviceError(BadInputError):
    """A device that this machine, or the pool, does not have."""

    code = "unknown_device"


class BodyTooLargeError(BadInputError):
    """A request body above its limit."""

    status = 413
    code = "body_too_large"


class UnauthorizedError(SemelError):
    """No API key, or an unknown one."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(SemelError):
    """An API key without the scope that the request needs."""

    status = 403
    code = "insufficient_scope"


class ForeignPageError(ForbiddenError):
    """A browser sent this request from another website's page, to a server without API keys."""

    code = "foreign_page"


class NotFoundError(SemelError):
    """An unknown id.

    Args:
        kind: what was looked for, such as `job`.
        name: its id.
    """

    status = 404
    code = "not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")


class ConflictError(SemelError):
    """The state of a job, batch or file does not allow the request."""

    status = 409
    code = "conflict"


class OverloadedError(SemelError):
    """More work waits than is allowed; nothing of the request was accepted.

    Args:
        retry_after_s: seconds to wait before the next attempt.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @classmethod
    def revived(cls, message: str, *, retry_after_s: float | None = None) -> Self:
        """`retry_after_s` is one second if the server named no time."""
        error = super().revived(message)
        error.retry_after_s = 1.0 if retry_after_s is None else retry_after_s
        return error


class UnavailableError(SemelError):
    """A service that semel needs does not answer.

    Attributes:
        retry_after_s: seconds to wait before the next attempt; None if the server named no time.
    """

    status = 503
    code = "service_unavailable"
    retry_after_s: float | None = None

    @classmethod
    def revived(cls, message: str, *, retry_after_s: float | None = None) -> Self:
        """Keeps the time that the server named."""
        error = super().revived(message)
        error.retry_after_s = retry_after_s
        return error


class TimedOutError(UnavailableError):
    """No answer in time; the cache keeps what was computed, so another attempt is cheap."""

    status = 504
    code = "timeout"


class QuotaExceededError(ForbiddenError):
    """An API key may keep no more files and texts of jobs."""

    code = "quota_exceeded"


class StorageFullError(SemelError):
    """The database has no room left; what it already holds stays readable.

    Args:
        where: the database, without its password.
    """

    status = 507
    code = "storage_full"

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the database {where} is full: free disk space, raise SEMEL_DATABASE_MAX_BYTES "
            "or run 'semel cache prune'; what was computed before is kept"
        )


class SchemaError(SemelError):
    """The database belongs to another version of semel."""

    code = "schema_mismatch"


class ModelLoadError(SemelError):
    """A model that cannot be loaded on this machine; the message explains how to get it."""

    code = "model_not_loadable"


class FingerprintError(ModelLoadError):
    """The weights are not the ones that the model's name stands for."""

    code = "fingerprint_mismatch"


class InvalidVectorError(SemelError):
    """A vector that is NaN, infinite, zero or of the wrong size; it is never stored."""

    code = "invalid_vector"


class BackendError(SemelError):
    """The device failed while it computed."""

    code = "backend_error"


class DeviceMemoryError(BackendError):
    """The device ran out of memory for this batch; a smaller batch may fit."""

    code = "out_of_memory"


class DeviceLostError(BackendError):
    """The device failed permanently, whatever the text; another worker may compute it."""

    code = "device_lost"
