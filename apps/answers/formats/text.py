"""Plain text: bytes in whatever encoding → characters."""

import codecs
import re

from apps.answers.formats.plain import Plain
from runtimes.errors import InputError

_MARKS = (  # the longer first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
MAX_CONTROLS = 0.01  # of the characters; more of them is no text


def read(data: bytes) -> Plain:
    plain = Plain()
    plain.add(decode(data))
    return plain


def decode(data: bytes) -> str:
    """By its byte order mark, else UTF-8, else UTF-16 if half of it is zeros, else Windows-1252.

    Raises InputError for what is no text in any of these.
    """
    text = _decoded(data)
    if len(_CONTROL.findall(text)) > MAX_CONTROLS * len(text):
        raise InputError("no text, but binary data; send TXT, Markdown, HTML, PDF or DOCX")
    return text


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], encoding)
    for odd, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = data[odd:4096:2]
        if half.count(0) > 0.7 * len(half):
            return _strict(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"damaged {encoding} text at byte {error.start}; save it as UTF-8") from None
