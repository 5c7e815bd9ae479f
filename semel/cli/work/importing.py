"""Import vectors from a file into the cache of this machine (`semel cache import`)."""

from pathlib import Path

from rich.progress import Progress

from semel.cache.transfer import exported_space, import_space
from semel.errors import BadInputError
from semel.local import Local
from semel.settings import Settings
from semel.vector_import import CHECKED_SHARE, Imported, Importer


def import_file(
    settings: Settings, source: Path, *, model: str | None, prompt_name: str, share: float = CHECKED_SHARE
) -> Imported:
    """Store the vectors of an exported space, or of rows with text and embedding.

    Args:
        model: the model that made the vectors of rows; None for the default. An export names its own.
        prompt_name: the prompt with which they were made.
        share: as for `Importer.take`; an export is checked by its fingerprint and checksums instead.

    Raises:
        BadInputError: there is no such file, it is neither of the two, or its vectors are damaged or not the model's.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {source}")
    exported = exported_space(source) if source.suffix == ".parquet" else None
    done = Imported(0, 0)
    with Local(settings=settings, device=settings.device) as here, Progress(transient=True) as progress:
        task = progress.add_task("importing", total=None)
        if exported is not None:
            for stored, read in import_space(here.store, exported, source):
                done = Imported(stored, read - stored)
                progress.update(task, completed=read)
            return done
        space = here.space(model or settings.default_model, prompt_name)
        importer = Importer(here.store, here.pipeline, here)
        for done in importer.take_file(space, source, max_text_bytes=settings.max_text_bytes, share=share):
            progress.update(task, completed=done.stored + done.present)
    return done
