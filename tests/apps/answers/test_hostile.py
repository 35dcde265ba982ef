"""Hostile and broken files: each ends in one clear line, and nothing of it is stored."""

import io
import itertools
import struct
import zipfile
import zlib

import made_files as files
import numpy as np
import pytest

from apps.answers.documents import MAX_CHARS
from apps.answers.parse import MAX_BYTES, parse
from apps.answers.store import SqliteStore
from runtimes.errors import InputError

GOOD = files.docx(files.paragraph("A good document."))
MORE = "".join(f'<!ENTITY {b} "{("&" + a + ";") * 10}">' for a, b in itertools.pairwise("abcdefghi"))
LAUGHS = f'<!DOCTYPE d [<!ENTITY a "haha">{MORE}]>'
OUTSIDE = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


def lying():
    """A member whose header claims ten bytes and which unpacks to 200 MB."""
    data = bytearray(bomb())
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)
    return bytes(data)


def bomb():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w") as member:
            for _ in range(200):
                member.write(b" " * (1 << 20))
    return made.getvalue()


def flagged():
    """A DOCX whose members say that they are encrypted."""
    data = bytearray(GOOD)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    return bytes(data)


def looped():
    """A tree of pages that holds itself."""
    return files.assembled(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"]
    )


def circular():
    """A table of places that says its older one is itself."""
    good = files.pdf(["Some text"])
    table = good.rfind(b"xref\n0")
    return good.replace(b"trailer << ", b"trailer << /Prev %d " % table)


def flate_bomb():
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>"
    inner = zlib.compress(zlib.compress(b"q " * (150 << 20), 9), 9)
    body = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (
        len(inner),
        inner,
    )
    return files.assembled(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page, body]
    )


def utf16_surrogates():
    return b"\xff\xfe" + "text ".encode("utf-16-le") + b"\x00\xd8" * 3


HOSTILE = {
    "an empty file": (b"", "a.txt", "an empty file"),
    "only blanks": (b" \n\t\r\n" * 50, "a.txt", "no text in it"),
    "over the size": (b"a" * (MAX_BYTES + 1), "a.txt", "over 20 MB"),
    "more text than is taken": (b"ab " * (MAX_CHARS // 2), "a.txt", "over 5000000 characters"),
    "binary data as text": (bytes(range(256)) * 40, "a.txt", "binary data"),
    "zeros as text": (b"\0" * 5000, "a.md", "binary data|no text"),
    "a program as text": (b"\x7fELF\x02\x01" + b"\0" * 100, "a.txt", "a program"),
    "an image as PDF": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "a.pdf", "an image"),
    "gzip as DOCX": (b"\x1f\x8b\x08" + b"\0" * 100, "a.docx", "a gzip archive"),
    "an old Word file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "a.docx", "old Office"),
    "RTF": (rb"{\rtf1 hello}", "a.txt", "RTF"),
    "UTF-16 cut short": (b"\xff\xfe" + "hello".encode("utf-16-le") + b"\x41", "a.txt", "damaged utf-16"),
    "UTF-16 with half characters": (utf16_surrogates, "a.txt", "damaged utf-16"),
    "HTML of a script only": (b"<html><script>alert(1)</script></html>", "a.html", "no text"),
    "HTML of 30,000 headings": (b"<html>" + b"<h1>x</h1>" * 30_000, "a.html", "over 20000 headings"),
    "a ZIP that is no DOCX": (
        lambda: files.docx("").replace(b"word/document", b"xxxx/document"), "a.docx", "no DOCX"),
    "a DOCX cut in half": (GOOD[: len(GOOD) // 2], "a.docx", "damaged archive"),
    "a DOCX with altered bytes": (
        lambda: GOOD.replace(GOOD[300:340], bytes(40)), "a.docx", "damaged"),
    "a ZIP bomb": (bomb, "a.docx", "over 64 MB"),
    "a ZIP bomb that lies": (lying, "a.docx", "damaged|no text|over 64 MB"),
    "a DOCX of a billion laughs": (lambda: files.docx("&i;", LAUGHS), "a.docx", "document type"),
    "a DOCX that asks for a file": (lambda: files.docx("&x;", OUTSIDE), "a.docx", "document type"),
    "a DOCX 100,000 deep": (lambda: files.docx("<w:p>" * 100_000), "a.docx", "500 deep"),
    "a DOCX of broken XML": (lambda: files.docx("<w:p><w:r></w:p>"), "a.docx", "mismatched tag"),
    "a locked DOCX": (flagged, "a.docx", "password"),
    "a DOCX of 6,000 files": (
        lambda: files.docx("x", extra=[(f"f{n}", b"") for n in range(6000)]), "a.docx", "over 5000"),
    "a DOCX with two bodies": (
        lambda: files.docx("x", extra=[("word/document.xml", b"<a/>")]), "a.docx", "two files of one name"),
    "a DOCX without text": (lambda: files.docx("<w:p/>"), "a.docx", "no text"),
    "a PDF of a header only": (b"%PDF-1.7\n", "a.pdf", "damaged"),
    "a PDF cut short": (lambda: files.pdf(["text"])[:200], "a.pdf", "damaged|no text"),
    "a PDF of noise": (lambda: b"%PDF-1.4\n" + np.random.default_rng(0).bytes(5000), "a.pdf", "damaged"),
    "a locked PDF": (lambda: files.locked(files.pdf(["secret"]), "key"), "a.pdf", "password"),
    "a PDF of 1,001 pages": (lambda: files.pdf(["x"] * 1001), "a.pdf", "1001 pages, over 1000"),
    "a PDF of pictures only": (lambda: files.pdf(["", ""]), "a.pdf", "no text"),
    "a PDF whose pages hold themselves": (looped, "a.pdf", "damaged|no text"),
    "a PDF whose table is its own parent": (circular, "a.pdf", None),
    "a PDF bomb": (flate_bomb, "a.pdf", "damaged|memory|no text"),
    "a PDF that is a ZIP too": (lambda: b"%PDF-1.4\n" + GOOD, "a.pdf", "damaged"),
}  # fmt: skip
NAMES = [
    "../../etc/passwd", "/etc/passwd", "..\\..\\x.txt", "C:\\x.txt", "c:x.txt", "a/b.txt", ".bashrc", "..",
    "", "a\0.txt", "a\n.txt", "a\u202etxt.exe", "a\ud800.txt", " a.txt", "x" * 201, "a\u2028b.txt",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "c.sqlite", lambda texts: np.ones((len(texts), 4), np.float32), "ones")
    yield store
    store.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_ends_in_one_line_and_leaves_nothing(kind, store):
    data, name, expected = HOSTILE[kind]
    data = data() if callable(data) else data
    if expected is None:  # read or refused, but never for long
        parse_or_refuse(data, name)
        return
    with pytest.raises(InputError, match=expected) as caught:
        store.add(parse(data, name))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: ")
    assert len(str(caught.value)) < 400
    assert store.entries() == [] and store.describe()["passages"] == 0


def parse_or_refuse(data, name):
    try:
        return parse(data, name, seconds=10)
    except InputError as error:
        assert "\n" not in str(error)
        return None


def test_there_are_at_least_25_kinds():
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_plain_file_name(name):
    with pytest.raises(InputError) as caught:
        parse(b"text", name)
    str(caught.value).encode()  # what is shown can be written


def test_what_takes_too_long_is_stopped():
    # Links within links within links: slow in any Markdown reader.
    data = b"[" * 200_000 + b"a](b)" * 200_000
    with pytest.raises(InputError, match=r"not read within \d s"):
        parse(data, "a.md", seconds=1)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<html>" + b"<div>" * 5_000 + b"deep</html>", "deep.html"),
        (b"> " * 50_000 + b"deep", "deep.md"),
        (b"*" * 100_000 + b"deep", "stars.md"),
        (b"deep" + b"\x1b[31m\x00\x07 text", "terminal.txt"),
        (b"<!doctype html><meta charset=hex><p>deep</p>", "charset.html"),
        (b"<!doctype html><meta charset=zip><p>deep</p>", "charset2.html"),
        (b"<!doctype html><p>deep &#0; &#xD800; &#x110000; &bogus;</p>", "entities.html"),
    ],
)
def test_odd_files_that_hold_text_are_read(data, name):
    document = parse_or_refuse(data, name)
    if document is not None:
        assert "deep" in document.text
        document.text.encode()
        assert "\x1b" not in document.text and "\0" not in document.text


def test_the_true_kind_is_read_whatever_the_name():
    assert parse(files.pdf(["Hello there"]), "a.txt").kind == "pdf"
    assert parse(GOOD, "a.pdf").kind == "docx"
    assert parse(b"<!-- c --><!DOCTYPE html><p>x", "a.md").kind == "html"
    assert parse(b"plain", "a.pdf").kind == "text"
