"""The tables of runtimes/web that come from Python: `python tests/support/web_tables.py` writes them anew.

Browsers know newer versions of Unicode than the tokenizers package does, so which characters count as
punctuation, accent or control is taken from that package, character by character.
"""

import html.entities
import json
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "runtimes/web"
SURROGATES = range(0xD800, 0xE000)


def entities_js() -> str:
    """HTML5's named characters, as html.unescape knows them."""
    pairs = sorted(html.entities.html5.items())
    rows = [json.dumps(dict(pairs[start : start + 8]))[1:-1] for start in range(0, len(pairs), 8)]
    body = ",\n".join(rows)
    head = "// HTML5's named characters (made by tests/support/web_tables.py).\n"
    return f"{head}export const ENTITIES = {{\n{body},\n}};\n"


def unicode_js() -> str:
    """What tokenizers' BERT parts make of each character."""
    from tokenizers import normalizers, pre_tokenizers

    whole, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    plain = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    control, accent, cjk, punctuation = [], [], [], []
    for code in (code for code in range(0x110000) if code not in SURROGATES):
        text = f"a{chr(code)}b"
        cleaned = plain.normalize_str(text)
        if cleaned == "ab":
            control.append(code)
        elif whole.normalize_str(text) == "ab":
            accent.append(code)
        elif len(cleaned) == 5:
            cjk.append(code)
        if len(split.pre_tokenize_str(text)) == 3:
            punctuation.append(code)
    tables = {"CONTROL": control, "ACCENT": accent, "CJK": cjk, "PUNCTUATION": punctuation}
    head = (
        "// Ranges of characters as the tokenizers package's BERT parts see them, in hexadecimal\n"
        "// (made by tests/support/web_tables.py).\n"
    )
    return head + "".join(f"export const {name} =\n{_wrapped(found)};\n" for name, found in tables.items())


def _wrapped(codes: list[int]) -> str:
    words, lines = list(_ranges(codes)), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 95:
            lines.append("")
        lines[-1] += f"{word} "
    return " +\n".join(f'  "{line}"' for line in lines)


def _ranges(codes: list[int]) -> Iterable[str]:
    start = None
    for code, after in zip(codes, [*codes[1:], -1], strict=True):
        start = code if start is None else start
        if after != code + 1:
            yield f"{start:x}" if start == code else f"{start:x}-{code:x}"
            start = None


if __name__ == "__main__":
    (FOLDER / "entities.js").write_text(entities_js(), encoding="utf-8")
    (FOLDER / "unicode.js").write_text(unicode_js(), encoding="utf-8")
