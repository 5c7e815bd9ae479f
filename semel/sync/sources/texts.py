"""The text in the bytes of a file: of text files as it is, of PDF, Word, PowerPoint and HTML as Markdown."""

import io
import logging
import threading
from functools import cache
from typing import Any

from semel.errors import BadInputError, UnavailableError

MARKDOWN_SUFFIXES = (".md", ".mdx", ".markdown")

PLAIN_SUFFIXES = (".txt", ".rst", ".adoc", ".org")

CONVERTED_SUFFIXES = (".pdf", ".docx", ".pptx", ".html", ".htm")
"""Read through markitdown."""

READ_SUFFIXES = (*MARKDOWN_SUFFIXES, *PLAIN_SUFFIXES, *CONVERTED_SUFFIXES)
"""Files of a folder that are documents, unless `include` names others."""

_one_at_a_time = threading.Lock()
"""markitdown does not promise that its converters can be used by several threads."""


def text_of(data: bytes, suffix: str) -> tuple[str, bool]:
    """The text of a file, and whether it is Markdown.

    Args:
        suffix: of the file's name, in lower case; files with unknown ones are text in UTF-8.

    Raises:
        BadInputError: the file has no text, is damaged, or is not UTF-8.
        UnavailableError: the converter is not installed.
    """
    if suffix in CONVERTED_SUFFIXES:
        text = _converted(data, suffix)
        if not text.strip():
            scanned = " (perhaps it is a scan, whose pages are pictures)" if suffix == ".pdf" else ""
            raise BadInputError(f"no text was found in it{scanned}")
        return text, True
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"it is not UTF-8 (byte {error.start} is {data[error.start]:#04x})") from None
    if "\0" in text:
        raise BadInputError("it is not a text: it contains NUL characters")
    return text, suffix in MARKDOWN_SUFFIXES


def _converted(data: bytes, suffix: str) -> str:
    converter = _converter()
    try:
        with _one_at_a_time:
            return str(converter.convert_stream(io.BytesIO(data), file_extension=suffix).text_content)
    except Exception as error:  # noqa: BLE001  # whatever a damaged file makes a converter raise, it is this file alone
        attempts = getattr(error, "attempts", None)
        cause = attempts[-1].exc_info[1] if attempts and attempts[-1].exc_info else error
        if type(cause).__name__ == "MissingDependencyException":
            raise UnavailableError(f"{suffix} files need pip install 'semel[documents]'") from None
        reason = str(cause).strip().splitlines()
        raise BadInputError(f"its text cannot be read: {reason[0] if reason else type(cause).__name__}") from None


@cache
def _converter() -> Any:
    try:
        from markitdown import MarkItDown
        from markitdown.converters import DocxConverter, HtmlConverter, PdfConverter, PptxConverter
    except ImportError:
        known = ", ".join(CONVERTED_SUFFIXES)
        raise UnavailableError(f"{known} files need markitdown: pip install 'semel[documents]'") from None
    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns of every font that is not as it should be
    # Not with its own list, whose last converter would take a damaged document for plain text.
    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    for each in (PdfConverter, DocxConverter, PptxConverter, HtmlConverter):
        converter.register_converter(each())
    return converter
