"""Import vectors from a file into the cache of this machine (`semel cache import`)."""

from pathlib import Path

from rich.progress import Progress

from semel.cache.transfer import exported_space, import_space
from semel.cli.work.local import local
from semel.errors import BadInputError
from semel.settings import Settings
from semel.vector_import import Importer


def import_file(settings: Settings, source: Path, *, model: str | None, prompt_name: str) -> tuple[int, int]:
    """Store the vectors of an exported space, or of rows with text and embedding.

    Args:
        model: the model that made the vectors of rows; None for the default. An export names its own.
        prompt_name: the prompt with which they were made.

    Returns:
        How many vectors were stored, and how many the cache had already.

    Raises:
        BadInputError: there is no such file, it is neither of the two, or its vectors are damaged or not the model's.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {source}")
    exported = exported_space(source) if source.suffix == ".parquet" else None
    stored = read = 0
    with local(settings, device=settings.device) as here, Progress(transient=True) as progress:
        task = progress.add_task("importing", total=None)
        if exported is not None:
            for so_far in import_space(here.store, exported, source):
                stored, read = so_far
                progress.update(task, completed=read)
            return stored, read - stored
        space = here.space(model or settings.default_model, prompt_name)
        importer = Importer(here.store, here.pipeline, here)
        for done in importer.take_file(space, source, max_text_bytes=settings.max_text_bytes):
            stored, read = done.stored, done.stored + done.present
            progress.update(task, completed=read)
    return stored, read - stored
