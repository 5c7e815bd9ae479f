"""Documents that Python code yields."""

from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core import Document as LlamaIndexDocument

from semel.sync.document import Listed
from semel.sync.sources import Objects


def listed(*documents: Any) -> list[Listed]:
    return list(Objects(documents).list())


def test_documents_of_langchain() -> None:
    found = listed(
        LangChainDocument(page_content="one", id="x", metadata={"brand": "b"}),
        LangChainDocument(page_content="two", metadata={"source": "a.pdf", "page": 0}),
        LangChainDocument(page_content="three", metadata={"source": "a.pdf", "page": 1}),
        LangChainDocument(page_content="four", metadata={"source": "b.pdf"}),
        LangChainDocument(page_content="five", metadata={}),
    )
    assert [each.id for each in found] == ["x", "a.pdf", "a.pdf#1", "b.pdf", None]
    assert found[0].document is not None
    assert (found[0].document.text, found[0].document.fields) == ("one", {"brand": "b"})
    assert "document 4: it has no id" in str(found[4].error)


def test_documents_of_llamaindex() -> None:
    with_path = LlamaIndexDocument(text="one", metadata={"file_path": "a.md"})
    again = LlamaIndexDocument(text="two", metadata={"file_path": "a.md"})
    with_id = LlamaIndexDocument(text="three", doc_id="mine")
    found = listed(with_path, again, with_id)
    assert [each.id for each in found] == ["a.md", "a.md#1", "mine"]
    assert [each.document and each.document.text for each in found] == ["one", "two", "three"]


def test_dicts_and_pairs() -> None:
    first, second = listed({"id": 7, "text": "one", "version": 3, "brand": "b"}, ("x", "two"))
    assert first.document is not None
    assert (first.id, first.version, first.document.fields) == ("7", "3", {"brand": "b"})
    assert (second.id, second.version, second.document and second.document.text) == ("x", None, "two")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a string", "a str is no document"),
        ({"text": "x"}, "it has no id"),
        ({"id": "", "text": "x"}, "it has no id"),
        ({"id": "a\0", "text": "x"}, "it has no id"),
        (("id", 5), "its text is int, not a string"),
        (None, "a NoneType is no document"),
    ],
)
def test_what_is_no_document_says_why(document: Any, message: str) -> None:
    (found,) = listed(document)
    assert message in str(found.error)
