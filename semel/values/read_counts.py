"""How much of some texts a model read."""

from collections.abc import Sequence
from dataclasses import dataclass

_CHARACTERS_PER_TOKEN = 4.0
"""Of English, with the special tokens: the guess as long as few texts were read whole."""

_GUESSED_TOKENS = 256
"""The guess counts like this many tokens of texts that were read whole."""


@dataclass(frozen=True)
class ReadCounts:
    """Totals over some texts.

    Attributes:
        truncated: texts that were longer than the model's limit.
        tokens: those that the model read, special ones included.
        unread: about the tokens that it did not read.
    """

    truncated: int = 0
    tokens: int = 0
    unread: int = 0

    def __add__(self, other: "ReadCounts") -> "ReadCounts":
        return ReadCounts(self.truncated + other.truncated, self.tokens + other.tokens, self.unread + other.unread)

    @property
    def unread_share(self) -> float:
        """About the share of all tokens that was not read, 0 to 1."""
        return self.unread / (self.tokens + self.unread) if self.unread else 0.0

    @classmethod
    def of(cls, sizes: Sequence[int], tokens: Sequence[int], truncated: Sequence[bool]) -> "ReadCounts":
        """Totals; what was not read is estimated from the texts that were read whole.

        Args:
            sizes: the characters of each text; not looked at if no text was truncated.
            tokens: those that the model read of each text.
            truncated: whether each text was longer than the model's limit.
        """
        if not any(truncated):
            return cls(tokens=sum(tokens))
        read = list(zip(sizes, tokens, truncated, strict=True))
        whole = [(size, count) for size, count, cut in read if not cut and count]
        characters = sum(size for size, _ in whole) + _GUESSED_TOKENS * _CHARACTERS_PER_TOKEN
        per_token = characters / (sum(count for _, count in whole) + _GUESSED_TOKENS)
        unread = sum(max(1, round(size / per_token) - count) for size, count, cut in read if cut)
        return cls(sum(truncated), sum(tokens), unread)
