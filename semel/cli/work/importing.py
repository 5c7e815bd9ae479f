"""The work behind `semel cache import`."""

from pathlib import Path

from rich.progress import Progress

from semel.cache.transfer import exported_space, import_space
from semel.cli.work.local import local
from semel.errors import BadInputError
from semel.settings import Settings
from semel.vector_import import Importer


def import_file(settings: Settings, source: Path, *, model: str | None, prompt_name: str) -> tuple[int, int]:
    """Take an exported space, or rows of text and embedding; how many were stored, and how many were there before.

    Raises:
        BadInputError: the file is neither; or its vectors are damaged, or not those of the model.
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
