"""What is read of each format: text, headings, and in what order."""

import hypothesis.strategies as st
import made_files as files
import pytest
from hypothesis import given, settings

from apps.answers.formats import html, markdown, text
from apps.answers.formats.pdf import joined
from apps.answers.formats.plain import tidy
from apps.answers.parse import parse
from apps.answers.reading import answer
from runtimes.errors import InputError


def headings(document):
    """(title, level), each proven to stand where it says."""
    for one in document.headings:
        assert document.text[one.start : one.start + len(one.title)] == one.title
    return [(one.title, one.level) for one in document.headings]


def test_text_in_every_encoding():
    wanted = "Käse costs 5 € – “fine”."
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"):
        data = wanted.encode(encoding)
        assert parse(data, "a.txt").text == wanted, encoding


def test_markdown():
    source = (
        "---\ntitle: x\n---\n# Top *em* &amp; `code`\n\nHello **world**, [link](http://x).\nNext line\n\n"
        "Sub\n---\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1\n```\n\n"
        "<p>raw <b>html</b></p>\n"
    )
    document = parse(source.encode(), "read.MD")
    assert headings(document) == [("Top em & code", 1), ("Sub", 2)]
    blocks = ["Top em & code", "Hello world, link.\nNext line", "Sub", "one", "two", "a | b", "1 | 2",
              "x = 1", "raw html"]  # fmt: skip
    assert document.text.split("\n\n") == blocks and document.kind == "markdown"


def test_html():
    source = (
        "<!DOCTYPE html><html><head><title>t</title><style>s{}</style></head><body><h1>A <i>b</i></h1>"
        "<p>one<br>two &amp; <b>th</b>ree<script>alert(1)</script></p><ul><li>x</li><li>y</li></ul>"
        "<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>"
        "<h2>Sub</h2>tail <!-- no --><pre>  def f():\n    pass</pre><img onerror=x alt=pic></body></html>"
    )
    document = parse(source.encode(), "a.html")
    assert headings(document) == [("A b", 1), ("Sub", 2)]
    blocks = ["A b", "one\ntwo & three", "x", "y", "k | v", "1 | 2", "Sub", "tail", "def f():\n pass"]
    assert document.text.split("\n\n") == blocks


def test_html_says_its_own_encoding():
    page = "<html><meta charset=iso-8859-2><p>Žluťoučký".encode("iso-8859-2")
    assert parse(page, "a.html").text == "Žluťoučký"


def test_docx():
    row = "".join(f"<w:tc>{files.paragraph(cell)}</w:tc>" for cell in "ab")
    body = (
        files.paragraph("Title", "H1")
        + files.paragraph("Hello &amp; <w:tab/>".replace("<w:tab/>", "bye"))
        + "<w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
        + files.paragraph("Part", "H2")
        + f"<w:tbl><w:tr>{row}</w:tr></w:tbl>"
        + "<w:p><w:r><w:instrText>HYPERLINK</w:instrText><w:t>end</w:t><w:br/><w:t>line</w:t></w:r></w:p>"
    )
    document = parse(files.docx(body), "a.docx")
    assert headings(document) == [("Title", 1), ("Part", 2)]
    assert document.text.split("\n\n") == ["Title", "Hello & bye", "kept", "Part", "a | b", "end\nline"]


def test_pdf():
    pages = ["Chapter One\nThe first line goes\non here. Done.", "Chapter Two\nSecond page."]
    document = parse(files.pdf(pages, [("Chapter One", 0), ("Chapter Two", 1)]), "a.pdf")
    assert headings(document) == [("Chapter One", 1), ("Chapter Two", 1)]
    assert "The first line goes on here. Done." in document.text
    assert document.text.index("Chapter Two") < document.text.index("Second page.")


def test_a_pdf_locked_for_printing_only_is_read():
    assert parse(files.locked(files.pdf(["Open to all"]), ""), "a.pdf").text == "Open to all"


def test_lines_of_a_page_are_joined():
    assert (
        joined("The infor-\nmation is\nhere.\nNext one.\n\nPara")
        == "The information is here.\nNext one.\n\nPara"
    )


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_text_or_refused(data):
    for read in (text.read, html.read, markdown.read):
        try:
            found = read(data).text
        except InputError as error:
            assert "\n" not in str(error)
            continue
        found.encode()
        assert tidy(found) == found


WHOLE = {
    "docx": files.docx(files.paragraph("Some text", "H1") + files.paragraph("More of it")),
    "pdf": files.pdf(["Some text", "More of it"], [("Some text", 0)]),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1), st.binary(max_size=8), st.integers(0, 8))
def test_altered_bytes_end_in_text_or_in_one_line(kind, place, noise, removed):
    data = WHOLE[kind]
    at = int(place * len(data))
    found = answer(kind, data[:at] + noise + data[at + removed :])
    if "error" in found:
        assert found["error"] and "\n" not in found["error"]
    else:
        found["text"].encode()


@pytest.mark.parametrize(
    "metadata", [{"": "x"}, {"a": "x" * 501}, {"a": "\ud800"}, {"a": 1}, {f"k{n}": "" for n in range(33)}]
)
def test_metadata_has_bounds(metadata):
    with pytest.raises(InputError):
        parse(b"text", "a.txt", metadata)
