"""Splits long texts into pieces that a model reads whole, by its own tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from semel.backends.models.source import ModelSource
from semel.backends.shared.tokenizing import load_tokenizer
from semel.errors import BadInputError
from semel.rows import Item
from semel.values.sync import ChunkOptions

_MARKDOWN = (".md", ".markdown", ".mdx")


@dataclass(frozen=True)
class Piece:
    """A part of a text; `start` is its first character's position there."""

    start: int
    text: str


class Chunker:
    """Splits texts at the ends of sections, paragraphs, sentences or words, whichever keeps pieces large.

    Source: the crate text-splitter, through semantic-text-splitter. The same text gives the same pieces.

    Args:
        source: the model, whose tokenizer counts.
        prompt: put before each piece when it is embedded.
        options: the sizes.

    Raises:
        BadInputError: the sizes leave no room for a text, are more than the model reads, or the splitter is missing.
        ModelLoadError: the model's files are not on this machine.
    """

    def __init__(self, source: ModelSource, options: ChunkOptions, *, prompt: str = "") -> None:
        try:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter
        except ImportError:
            raise BadInputError("splitting texts needs semantic-text-splitter: pip install 'semel[chunk]'") from None
        if options.characters:
            if options.tokens or not 0 <= options.overlap < options.characters:
                raise BadInputError("pieces have a number of tokens or of characters, with a smaller overlap")
            self._plain = TextSplitter(options.characters, options.overlap)
            self._markdown = MarkdownSplitter(options.characters, options.overlap)
            return
        reads = source.described.spec.max_tokens
        most = options.tokens or reads
        if most > reads:
            raise BadInputError(f"model {source.name!r} reads at most {reads} tokens, so pieces cannot have {most}")
        tokenizer = _counting(load_tokenizer(source))
        led = tokenizer.num_special_tokens_to_add(is_pair=False) + len(
            tokenizer.encode(prompt, add_special_tokens=False).ids
        )
        room = most - led
        if not 0 <= options.overlap < room:
            raise BadInputError(
                f"pieces of {most} tokens have room for {max(0, room)} of a text ({led} are special ones and the "
                f"prompt), so {options.overlap} of them cannot overlap; choose larger pieces or a smaller overlap"
            )
        self._plain = TextSplitter.from_huggingface_tokenizer(tokenizer, room, options.overlap)
        self._markdown = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, room, options.overlap)

    def pieces(self, text: str, *, markdown: bool = False) -> list[Piece]:
        """The pieces of a text in order, without white space around them; a text that fits stays as it is.

        Args:
            markdown: prefer the ends of headings' sections, lists and code blocks.
        """
        splitter = self._markdown if markdown else self._plain
        found = [Piece(start, piece) for start, piece in splitter.chunk_indices(text)]
        return found if len(found) > 1 else [Piece(0, text)]

    def split(self, items: Iterable[Item]) -> Iterator[Item]:
        """Items with one piece each, in order; the id of a piece is that of its text, `#`, and its number from 0.

        Items without a text stay as they are.
        """
        index = 0
        for item in items:
            pieces = [] if item.text is None else self.pieces(item.text, markdown=_is_markdown(item))
            if not pieces:
                yield _numbered(item, index)
                index += 1
            for number, piece in enumerate(pieces):
                row_id = f"{item.index if item.id is None else item.id}#{number}"
                where = item.where if len(pieces) == 1 else f"{item.where}, piece {number}"
                yield Item(index, piece.text, where, row_id, fields=item.fields)
                index += 1


def _counting(loaded: Any) -> Any:
    """The tokenizer without limits: it only counts."""
    tokenizer = loaded.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _is_markdown(item: Item) -> bool:
    return str(item.id).lower().endswith(_MARKDOWN)


def _numbered(item: Item, index: int) -> Item:
    return Item(index, item.text, item.where, item.id, item.error, item.fields)
