"""Python's collector of reference cycles, in processes that belong to semel alone.

By default it runs after 700 new objects, and every so often it walks over all objects: a million of them, once torch
and transformers are loaded. A GPU then computed 51,000 sentences per second instead of 85,000, and a body of 4 MiB,
which can hold a million lists, held up all requests for most of a second.
"""

import gc

_THRESHOLDS = (50_000, 20, 100)
"""New objects before a collection, and younger collections before one of the next generation."""


class _Process:
    belongs_to_semel = False


def relax() -> None:
    """Collect rarely from now on. Call it in a process of semel's own, and not in a user's program."""
    _Process.belongs_to_semel = True
    gc.set_threshold(*_THRESHOLDS)


def keep_loaded() -> None:
    """Leave out of collections what exists now, such as a library or a model, in a process that is relaxed."""
    if _Process.belongs_to_semel:
        gc.freeze()


def forget_unloaded() -> None:
    """Free the cycles of a model that was unloaded, which collections left out."""
    if _Process.belongs_to_semel:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
