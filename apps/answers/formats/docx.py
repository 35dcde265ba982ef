"""DOCX → plain text: the archive's own XML, read as a stream and within bounds.

Only `word/document.xml` and the names of styles are read: no macro, no link, no embedded file.
"""

import io
import re
import zipfile
from xml.parsers import expat

from apps.answers.formats.plain import Plain
from runtimes.errors import InputError

MAX_MEMBERS = 5_000
MAX_XML = 64 << 20  # bytes of a member, unpacked
MAX_DEPTH = 500  # elements within elements
_BODY, _STYLES = "word/document.xml", "word/styles.xml"
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def read(data: bytes) -> Plain:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) > MAX_MEMBERS:
            raise InputError(f"{len(members)} files in the archive, over {MAX_MEMBERS}; save it again")
        if len(members) != len(archive.infolist()):
            raise InputError("two files of one name in the archive; save it again")
        levels = {}
        if _STYLES in members:
            styles = _Styles()
            _parse(_member(archive, members[_STYLES]), styles.start, styles.end, None)
            levels = styles.levels
        body = _Body(levels)
        _parse(_member(archive, members[_BODY]), body.start, body.end, body.characters)
    body.close()
    return body.plain


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """At most MAX_XML bytes, whatever the header claims."""
    if member.flag_bits & 1:
        raise InputError("locked by a password; save it without one")
    with archive.open(member) as stream:
        data = stream.read(MAX_XML + 1)
    if len(data) > MAX_XML:
        raise InputError(f"{member.filename} unpacks to over {MAX_XML >> 20} MB; split the document")
    return data


def _parse(data, start, end, characters) -> None:  # type: ignore[no-untyped-def]
    """Stream the XML to the handlers, which get names without namespace. No document type, no entities."""
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"elements {MAX_DEPTH} deep; save the document again")
        start(_local(name), {_local(key): value for key, value in attributes.items()})

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(_local(name))

    def refuse(*_: object) -> None:
        raise InputError("its XML declares a document type, which no word processor writes")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    parser.Parse(data, True)


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


class _Styles:
    """Style id → heading level: by its outline level, or by its built-in name."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {}
        self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "style":
            self._style = attributes.get("styleId", "")
        elif name == "name" and self._style and (found := re.fullmatch(r"(?i)heading ([1-9])", value)):
            self.levels[self._style] = int(found.group(1))
        elif name == "name" and self._style and value.lower() == "title":
            self.levels[self._style] = 1
        elif name == "outlineLvl" and self._style and value.isdigit() and int(value) < 9:
            self.levels.setdefault(self._style, int(value) + 1)

    def end(self, name: str) -> None:
        if name == "style":
            self._style = ""


class _Body:
    """Paragraphs and headings in their order; the cells of a table row make one block."""

    def __init__(self, levels: dict[str, int]) -> None:
        self.plain = Plain()
        self._levels, self._level = levels, 0
        self._parts: list[str] = []
        self._text, self._rows, self._skip = False, 0, 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "Fallback" or self._skip:  # what newer programs draw, again for older ones
            self._skip += 1
        elif name == "t":
            self._text = True
        elif name == "pStyle":
            self._level = self._levels.get(attributes.get("val", ""), 0)
        elif name == "tr":
            self._rows += 1
        elif name in _BREAKS:
            self._parts.append(_BREAKS[name])

    def end(self, name: str) -> None:
        if self._skip:
            self._skip -= 1
        elif name == "t":
            self._text = False
        elif name == "tc":
            self._parts.append(" | ")
        elif name == "tr":
            self._rows -= 1
            self.close()
        elif name == "p":
            if self._rows:
                self._parts.append(" ")
            else:
                self.close()

    def characters(self, data: str) -> None:
        if self._text and not self._skip:
            self._parts.append(data)

    def close(self) -> None:
        self.plain.add(re.sub(r"\s*\|\s*$", "", re.sub(r" +\| +", " | ", "".join(self._parts))), self._level)
        self._parts, self._level = [], 0
