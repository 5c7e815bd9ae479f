"""Real text for the benchmarks: sentences and paragraphs from the docstrings of Python's standard library."""

import random
import re
from itertools import cycle

from semel.cli.work.docstrings import standard_library_docstrings

SEED = 20261121


def sentences(count: int) -> list[str]:
    """Distinct sentences of 30 to 80 characters, ~15 tokens."""
    found = set[str]()
    for docstring in standard_library_docstrings():
        for part in re.split(r"(?<=[.!?])\s+|\n\n", docstring.text):
            sentence = " ".join(part.split())
            if 30 <= len(sentence) <= 80:
                found.add(sentence)
    return _sample(sorted(found), count)


def paragraphs(count: int) -> list[str]:
    """Distinct passages of 500 characters, ~150 tokens."""
    found = set[str]()
    for docstring in standard_library_docstrings():
        text = " ".join(docstring.text.split())
        found.update(text[at : at + 500] for at in range(0, len(text) - 450, 500))
    return _sample(sorted(found), count)


def distinct(texts: list[str], count: int) -> list[str]:
    """`count` distinct texts: those given, and again with a number at the end, which adds a token or two."""
    return [text if i < len(texts) else f"{text} {i // len(texts)}" for i, text in zip(range(count), cycle(texts))]


def _sample(texts: list[str], count: int) -> list[str]:
    if count > len(texts):
        raise SystemExit(
            f"this Python's docstrings have only {len(texts)} such texts, fewer than {count}; ask for fewer"
        )
    return random.Random(SEED).sample(texts, count)
