"""Small documents of every kind, made by hand so that each byte of them is known."""

import io
import zipfile
import zlib

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
STYLES = "".join(
    f'<w:style w:styleId="H{n}"><w:name w:val="heading {n}"/></w:style>' for n in (1, 2)
)  # fmt: skip


def paragraph(text, style=""):
    mark = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{mark}<w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(body, prolog="", extra=()):
    """A DOCX around the XML of a body."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/styles.xml", f"<w:styles {W}>{STYLES}</w:styles>")
        archive.writestr("word/document.xml", f"{prolog}<w:document {W}><w:body>{body}</w:body></w:document>")
        for name, data in extra:
            archive.writestr(name, data)
    return made.getvalue()


def pdf(pages, outline=()):
    """A PDF with a line of text a page line; `outline` (title, page number) pairs."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(count))
    first = 4 + 2 * count
    root = "<< /Type /Catalog /Pages 2 0 R"
    root += f" /Outlines {first} 0 R >>" if outline else " >>"
    objects = [
        root.encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {resources} "
            f"/Contents {5 + 2 * number} 0 R >>".encode()
        )
        shown = "\n".join(f"({line}) Tj T*" for line in lines.split("\n")) if lines else ""
        objects.append(stream(f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}\nET".encode()))
    if outline:
        last = first + len(outline)
        objects.append(
            f"<< /Type /Outlines /First {first + 1} 0 R /Last {last} 0 R /Count {len(outline)} >>".encode()
        )
        for number, (title, page) in enumerate(outline, 1):
            after = f"/Next {first + number + 1} 0 R" if number < len(outline) else ""
            objects.append(
                f"<< /Title ({title}) /Parent {first} 0 R {after} /Dest [{4 + 2 * page} 0 R /Fit] >>".encode()
            )
    return assembled(objects)


def stream(data):
    packed = zlib.compress(data, 9)
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)


def assembled(objects):
    made, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    made += b"".join(b"%010d 00000 n \n" % place for place in places)
    made += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(made)


def locked(data, password):
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(password, algorithm="RC4-128")
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()
