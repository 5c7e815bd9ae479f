"""The text in PDF, Word, PowerPoint and HTML files."""

import io
import zipfile

import pytest
from pptx import Presentation

from semel.errors import BadInputError
from semel.sync.sources.texts import text_of

WORD = """<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:body><w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Manual</w:t></w:r></w:p>
<w:p><w:r><w:t>Turn the handle.</w:t></w:r></w:p></w:body></w:document>"""

TYPES = """<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml"
 ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"""

RELATIONS = """<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
 Target="word/document.xml"/></Relationships>"""


def pdf(text: str) -> bytes:
    """A page with one line."""
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, io.SEEK_END)
    for number, part in enumerate(parts, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj%b endobj\n" % (number, part))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(parts) + 1, table))
    return out.getvalue()


def docx() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr("_rels/.rels", RELATIONS)
        archive.writestr("word/document.xml", WORD)
    return out.getvalue()


def pptx() -> bytes:
    slides = Presentation()
    slide = slides.slides.add_slide(slides.slide_layouts[0])
    slide.shapes.title.text = "Slides"
    slide.placeholders[1].text = "Turn the handle."
    out = io.BytesIO()
    slides.save(out)
    return out.getvalue()


HTML = (
    b"<html><head><title>t</title></head><body><h1>Page</h1><p>Turn the handle.</p><script>x()</script></body></html>"
)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (pdf("Turn the handle."), ".pdf"),
        (docx(), ".docx"),
        (pptx(), ".pptx"),
        (HTML, ".html"),
    ],
    ids=[".pdf", ".docx", ".pptx", ".html"],
)
def test_documents_become_markdown(data: bytes, suffix: str) -> None:
    text, markdown = text_of(data, suffix)
    assert "Turn the handle." in text
    assert markdown
    assert "x()" not in text


def test_a_heading_stays_a_heading() -> None:
    assert "# Page" in text_of(HTML, ".html")[0]


@pytest.mark.parametrize("suffix", [".pdf", ".docx", ".pptx"])
def test_a_damaged_document_says_so(suffix: str) -> None:
    with pytest.raises(BadInputError, match=r"its text cannot be read: (?!File conversion failed)"):
        text_of(b"PK\x03\x04 this is none", suffix)


def test_a_document_without_text_says_so() -> None:
    with pytest.raises(BadInputError, match="no text was found in it \\(perhaps it is a scan"):
        text_of(pdf(""), ".pdf")


def test_a_text_file_is_what_it_is() -> None:
    assert text_of("\ufeffGrüße\r\n".encode(), ".md") == ("Grüße\r\n", True)
    assert text_of(b"x", ".txt") == ("x", False)
