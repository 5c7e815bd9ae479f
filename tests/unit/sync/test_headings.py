"""Headings of Markdown."""

from semel.sync.headings import Headings

TEXT = """intro

# Install
how

## Linux
```sh
# no heading
```
steps

Setext
------
more

# Use
last
"""


def test_a_place_is_under_its_headings() -> None:
    headings = Headings(TEXT)
    assert headings.at(TEXT.index("intro")) == ""
    assert headings.at(TEXT.index("how")) == "Install"
    assert headings.at(TEXT.index("# no heading")) == "Install > Linux"
    assert headings.at(TEXT.index("steps")) == "Install > Linux"
    assert headings.at(TEXT.index("more")) == "Install > Setext"
    assert headings.at(TEXT.index("# Use")) == "Use"
    assert headings.at(TEXT.index("last")) == "Use"


def test_lines_may_end_in_every_way() -> None:
    text = "a\rb\r# One\r\nc\n# Two\rd"
    headings = Headings(text)
    assert [headings.at(text.index(each)) for each in "abcd"] == ["", "", "One", "Two"]


def test_the_title_is_the_first_of_the_highest_headings() -> None:
    assert Headings(TEXT).title == "Install"
    assert Headings("## A\n# B\n# C").title == "B"
    assert Headings("none").title is None
