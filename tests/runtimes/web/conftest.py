"""One page of a real Chromium in which the JavaScript runtime answers, and one corpus of odd texts."""

import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import chromium, need_browser, need_packages
from hypothesis import given, settings
from hypothesis import strategies as st

FRAGMENTS = [
    "<b>", "</b>", "<br/>", "<!--", "-->", "<script>", "</script>", "<STYLE >", "</style>", "<a href='x'>",
    "<", ">", "< 3", "&amp;", "&amp", "&lt;b&gt;", "&notit;", "&NotEqualTilde;", "&nosuch;", "&", "&#",
    "#39;", "&#39;", "&#x27;", "&#0;", "&#128;", "&#129;", "&#xD800;", "&#x110000;", "&#xFFFE;", "&#11;",
    "&#99999999999;", "&#" + "9" * 5_000 + ";", "&#" + "0" * 5_000 + "65;", "&#0x41;",
    "&#٣٤;", "#٣٤;", "\u200b", "\ufeff", "\u180e", "\x85", "\x1c", "\xa0", "\u3000",
    "e\u0301", "ﬁ", "Ω", "ΟΔΟΣ", "İ", "ß", "中文", "𠀀丽", "한국어", "naïve", "[SEP]", "[CLS]", "[pad]",
    "goal", "shares", "##s", "word" * 40, "\u2e43", "،", "👩\u200d👧",
]  # fmt: skip


def texts(count: int) -> list[str]:
    """Texts of assigned characters, markup and entities, always the same ones."""
    letters = st.characters(exclude_categories=("Cs", "Cn"))
    parts = st.one_of(st.sampled_from(FRAGMENTS), st.text(letters, max_size=6), st.text("ab c.", max_size=4))
    found: list[str] = ["", " ", *FRAGMENTS]

    @settings(max_examples=count, derandomize=True, database=None, deadline=None)
    @given(st.lists(parts, max_size=12).map("".join))
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return texts(800)


@pytest.fixture(scope="session")
def assigned() -> list[int]:
    """Every character that this Python's Unicode knows, private ones and surrogates left out."""
    codes = range(0x20, 0xE0000)
    return [code for code in codes if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]


@pytest.fixture(scope="session")
def served(tiny_bundle: Any) -> Iterator[Any]:
    """The server of the bench page with the packages and the tiny bundle; tests may add files."""
    from device_bench.devices.browser import site
    from device_bench.devices.pages import Page

    need_browser()
    packages = {f"web/engines/{name}": source for name, source in need_packages().items()}
    paths = (path for path in tiny_bundle.rglob("*") if path.is_file())
    bundle = {f"tiny/{path.relative_to(tiny_bundle)}": path for path in paths}
    page = Page("test", {**site(), **packages, **bundle, "blank.html": b"<!doctype html><title>test</title>"})
    yield page
    page.close()


@pytest.fixture(scope="module")  # one driver of browsers at a time
def tab(served: Any) -> Iterator[Any]:
    """A tab with the modules `edgewise`, `text` and `bert` loaded."""
    with chromium() as context:
        opened = context.new_page()
        opened.goto(f"{served.url}blank.html")
        opened.evaluate(
            """async () => {
              for (const name of ["edgewise", "text", "bert"]) {
                globalThis[name] = await import(`./web/${name}.js`);
              }
              globalThis.failed = (work) => work.then(() => null, ({ name, message }) => [name, message]);
            }"""
        )
        yield opened
