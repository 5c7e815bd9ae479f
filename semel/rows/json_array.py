"""A .json file: a list of rows or texts, read some at a time."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from semel.errors import BadInputError
from semel.rows.lines import as_record
from semel.rows.opened import opened
from semel.rows.record import Record, Wanted

_PIECE_BYTES = 1 << 20


def read_json(path: Path, wanted: Wanted) -> Iterator[Record]:
    """Each item of the list is a row, or a text. Memory holds one item and a piece of the file.

    Raises:
        BadInputError: the file holds no list, is not JSON or not UTF-8, or has an item that is too long.
    """
    with opened(path, max_bytes=wanted.max_bytes) as file:
        text = _Text(path, file, longest=wanted.longest_line)
        if text.next_character() != "[":
            raise BadInputError(
                f'{path}: a .json file must hold a list of rows, such as [{{"text": "…"}}]; for one row in each line, '
                "name it .jsonl"
            )
        row, following = 0, "["
        text.pass_over()
        while following != "]":
            row += 1
            where = f"{path}: row {row}"
            if row == 1 and text.next_character() == "]":
                text.pass_over()
                break
            yield as_record(where, text.value(where), wanted.required[0])
            following = text.next_character()
            if following not in (",", "]"):
                raise BadInputError(f"{where}: not JSON: it is followed by {following!r} instead of a comma or the end")
            text.pass_over()
        if rest := text.next_character():
            raise BadInputError(f"{path}: not JSON: {rest!r} follows the end of the list")


class _Text:
    """The part of the file that was read, and the place in it up to which it was used."""

    def __init__(self, path: Path, file: BinaryIO, *, longest: int) -> None:
        self._path = path
        self._file = file
        self._longest = longest
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0

    def next_character(self) -> str:
        """The next character that is no white space, which stays; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def pass_over(self) -> None:
        """Pass over the character that `next_character` returned."""
        self._at += 1

    def value(self, where: str) -> object:
        """Take the next JSON value. Raises BadInputError."""
        self.next_character()
        while True:
            try:
                value, stop = self._json.raw_decode(self._text, self._at)
                if stop < len(self._text) or not self._more():  # a number at the end may go on
                    self._at = stop
                    return value
            except RecursionError:
                raise BadInputError(f"{where}: not JSON: it is nested too deeply") from None
            except ValueError as error:
                if len(self._text) - self._at > self._longest + _PIECE_BYTES:
                    problem = f"longer than {self._longest} characters, or not JSON: {error}"
                    raise BadInputError(f"{where}: {problem}") from None
                if not self._more():
                    raise BadInputError(f"{where}: not JSON: {error}") from None

    def _more(self) -> bool:
        """Read the next piece of the file, and forget what was used; False at its end."""
        data = self._file.read(_PIECE_BYTES)
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            raise BadInputError(f"{self._path}: not UTF-8; save the file as UTF-8") from None
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(data)
