"""Errors by their codes, as they travel between processes."""

from functools import cache

from semel.errors import BackendError, InvalidTextError, InvalidVectorError, SemelError, TextTooLongError


def revive(code: str, message: str, *, retry_after_s: float | None = None) -> SemelError:
    """Rebuild another process's error from its code and message; an unknown code becomes a plain SemelError.

    Every documented attribute of the class is set.
    """
    kind = _kinds().get(code, SemelError)
    return kind.revived(message, retry_after_s=retry_after_s)


@cache
def _kinds() -> dict[str, type[SemelError]]:
    """Every error class by its code; a class that inherits its code from its base does not replace it."""
    kinds: list[type[SemelError]] = [SemelError]
    for kind in kinds:  # the list grows during the loop until it holds the whole tree
        kinds += kind.__subclasses__()
    return {kind.code: kind for kind in reversed(kinds)}


def is_fault_of_the_text(code: str) -> bool:
    """Whether the text itself makes the model fail; an error with any other code is the service's fault."""
    return code in {InvalidTextError.code, TextTooLongError.code, InvalidVectorError.code, BackendError.code}
