"""The files of a local folder, or of a place that fsspec can read: S3, Google Cloud Storage, Azure, Hugging Face."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from semel.errors import BadInputError, UnavailableError
from semel.sync.addresses import without_password
from semel.sync.document import Document, Listed
from semel.sync.headings import Headings
from semel.sync.sources.texts import READ_SUFFIXES, text_of

MOST_BYTES = 64 << 20
"""Larger files are no documents to be read in one piece; they fail with a message."""

FIELDS = ("path", "title", "heading", "modified")
"""What the index can keep of a file. `heading` belongs to each chunk."""


@dataclass(frozen=True)
class FileEntry:
    """A file as its folder lists it.

    Attributes:
        path: within the folder, with `/`.
        version: changes whenever the file is written.
        modified: Unix seconds, or the time as the place itself has it.
        error: why nothing else is known of it.
    """

    path: str
    version: str
    modified: float | str
    size: int
    error: str | None = None

    @property
    def modified_at(self) -> str:
        """When the file was written, in ISO 8601 if that is known."""
        if isinstance(self.modified, str):
            return self.modified
        return datetime.fromtimestamp(self.modified, UTC).isoformat(timespec="seconds")


class Tree(Protocol):
    """A folder with all that is in it.

    Attributes:
        threads: how many files are best read at a time.
    """

    threads: int

    def entries(self) -> Iterator[FileEntry]:
        """All files in it. Raises BadInputError and UnavailableError."""

    def entry(self, path: str) -> FileEntry:
        """One file. Raises OSError."""

    def read(self, path: str) -> bytes:
        """The content of a file. Raises OSError."""


class Files:
    """The files of a folder as documents; their ids are their paths in it.

    Hidden files, and files whose names are not UTF-8, are left out.

    Args:
        tree: the folder.
        include: patterns as in .gitignore; empty for every file of a known kind.
        with_titles: whether the title of a document is wanted, for which its headings are read.
    """

    def __init__(self, tree: Tree, include: Sequence[str], *, with_titles: bool) -> None:
        self._tree = tree
        self.threads = tree.threads
        self._with_titles = with_titles
        self._included = _patterns(include) if include else None

    def list(self) -> Iterator[Listed]:
        """The files of the folder; see `Source`."""
        for entry in self._tree.entries():
            if self._is_read(entry.path):
                yield Listed(entry.path, entry.version, error=entry.error)

    def _is_read(self, path: str) -> bool:
        if path.startswith(".") or "/." in path:
            return False
        if self._included is not None:
            return bool(self._included.match_file(path))
        return path.lower().endswith(READ_SUFFIXES)

    def read(self, listed: Listed) -> Document:
        """A file's text; see `Source`."""
        assert listed.id is not None  # a file has a path
        path = listed.id
        try:
            entry = self._tree.entry(path)  # before the content: an edit in between is found by the next run
            if entry.size > MOST_BYTES:
                raise BadInputError(f"it has {entry.size:,} bytes; documents may have {MOST_BYTES:,}")
            data = self._tree.read(path)
        except OSError as error:
            raise BadInputError(f"it cannot be read: {error.strerror or error}") from None
        text, markdown = text_of(data, PurePosixPath(path).suffix.lower())
        title = Headings(text).title if self._with_titles and markdown else None
        fields = {"path": path, "title": title or PurePosixPath(path).stem, "modified": entry.modified_at}
        return Document(path, entry.version, text, fields, markdown)

    def is_current(self, document: Document) -> bool:
        """Whether the file was not written since; see `Source`."""
        try:
            return self._tree.entry(document.id).version == document.version
        except OSError:
            return False


class LocalTree:
    """A folder of this machine."""

    threads = 2  # more wait for each other: reading a small file takes less time than handing it over

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> Iterator[FileEntry]:
        """All files in it; symbolic links to files are followed, those to folders are not."""
        if not self._root.is_dir():
            raise BadInputError(f"there is no folder {self._root}; if it is a mount, it may be gone")
        for folder, folders, files in os.walk(self._root, onerror=unlistable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            within = folder[len(str(self._root)) :].replace(os.sep, "/").strip("/")
            for name in sorted(files):
                path = f"{within}/{name}" if within else name
                if not name.startswith(".") and _is_utf8(path):
                    try:
                        yield self.entry(path)
                    except FileNotFoundError:  # it has gone since, or is a link to nothing
                        continue
                    except OSError as error:  # it is there: what the index has of it must stay
                        yield FileEntry(path, "", "", 0, error=f"it cannot be read: {error.strerror}")

    def entry(self, path: str) -> FileEntry:
        """One file; its version is the time of the last write, in nanoseconds, and the size."""
        found = os.stat(f"{self._root}/{path}")  # noqa: PTH116  # pathlib takes five times as long, for each file
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(path)
        return FileEntry(path, f"{found.st_mtime_ns}-{found.st_size}", found.st_mtime, found.st_size)

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return (self._root / path).read_bytes()


class RemoteTree:
    """A folder at a URL that fsspec knows.

    Args:
        url: such as `s3://bucket/docs`; credentials come from the environment, as for that protocol's own tools.

    Raises:
        UnavailableError: fsspec, or its part for this protocol, is not installed.
    """

    threads = 16  # each file takes tens of milliseconds

    def __init__(self, url: str) -> None:
        try:
            import fsspec
            import fsspec.asyn
        except ImportError:
            raise UnavailableError(f"{without_password(url)} needs fsspec: pip install 'semel[s3]'") from None
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UnavailableError(f"{without_password(url)} cannot be read: {error}") from None
        self._url = without_password(url)
        # fsspec's own way to walk leaves folders out that it cannot list: their files would seem to be gone.
        own = (fsspec.AbstractFileSystem.find, fsspec.asyn.AsyncFileSystem._find)
        walks = type(self._fs).find is own[0] or getattr(type(self._fs), "_find", None) is own[1]
        self._strict: dict[str, Any] = {"on_error": "raise"} if walks else {}

    def entries(self) -> Iterator[FileEntry]:
        """All files below the URL."""
        try:
            found: dict[str, Any] = self._fs.find(self._root, detail=True, **self._strict)
        except Exception as error:  # noqa: BLE001  # each protocol has errors of its own
            raise UnavailableError(f"{self._url} cannot be listed: {error}") from None
        if not found:
            raise BadInputError(f"there is nothing at {self._url}; if it should not be empty, its bucket may be wrong")
        for name, info in found.items():
            path = name[len(self._root) :].lstrip("/")
            if path and _is_utf8(path):
                yield _remote_entry(path, info)

    def entry(self, path: str) -> FileEntry:
        """One file."""
        return _remote_entry(path, self._call(self._fs.info, path))

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return bytes(self._call(self._fs.cat_file, path))

    def _call(self, method: Any, path: str) -> Any:
        try:
            return method(f"{self._root.rstrip('/')}/{path}")
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  # each protocol has errors of its own
            raise OSError(str(error)) from None


def _remote_entry(path: str, info: dict[str, Any]) -> FileEntry:
    """The version is the content's tag, where the protocol has one; otherwise the time and the size."""
    tag = next(
        (str(info[name]) for name in ("ETag", "etag", "md5Hash", "content_md5", "blob_id") if info.get(name)), None
    )
    time = next((info[n] for n in ("LastModified", "last_modified", "updated", "mtime", "created") if info.get(n)), "")
    return FileEntry(path, tag or f"{time}-{info.get('size')}", str(time), int(info.get("size") or 0))


def unlistable(error: OSError) -> None:
    """A folder that cannot be listed ends the run: its documents would seem to be gone."""
    raise UnavailableError(f"{error.filename} cannot be read: {error.strerror}")


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _patterns(include: Sequence[str]) -> Any:
    try:
        from pathspec import GitIgnoreSpec
    except ImportError:
        raise UnavailableError("patterns of files need pathspec: pip install 'semel[sync]'") from None
    return GitIgnoreSpec.from_lines(include)
