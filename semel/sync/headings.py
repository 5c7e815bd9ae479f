"""The headings of a Markdown text."""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from semel.errors import UnavailableError


@dataclass(frozen=True)
class _Heading:
    start: int
    level: int
    path: tuple[str, ...]


class Headings:
    """Which headings a place in a text is under.

    Args:
        text: Markdown; headings in code blocks are none.

    Raises:
        UnavailableError: markdown-it-py is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            from markdown_it import MarkdownIt
        except ImportError:
            raise UnavailableError("headings need markdown-it-py: pip install 'semel[sync]'") from None
        starts = [0, *(end.end() for end in re.finditer(r"\r\n?|\n", text))]  # as markdown-it ends lines
        self._found: list[_Heading] = []
        tokens = MarkdownIt().parse(text)
        for token, inline in pairwise(tokens):
            if token.type == "heading_open" and token.map:
                level = int(token.tag[1:])
                above = next((each for each in reversed(self._found) if each.level < level), None)
                path = (*(above.path if above else ()), inline.content.strip())
                self._found.append(_Heading(starts[token.map[0]], level, path))
        self._starts = [each.start for each in self._found]

    @property
    def title(self) -> str | None:
        """The first heading of the highest level; None if there is no heading."""
        return min(self._found, key=lambda each: each.level).path[-1] if self._found else None

    def at(self, position: int) -> str:
        """The headings that a character is under, as in `Install > Linux`; "" above the first one."""
        number = bisect_right(self._starts, position)
        return " > ".join(self._found[number - 1].path) if number else ""
