import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench import figures, plot
from device_bench.report import report
from runtimes.errors import InputError

Make = Callable[..., dict[str, Any]]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e"


class Page(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def make(rows: list[dict[str, Any]], tmp_path: Path, title: str = "News") -> tuple[str, Page]:
    source = report(rows, tmp_path / "out/page.html", title).read_text("utf-8")
    return source, Page(source)


def variants(make_row: Make) -> list[dict[str, Any]]:
    ratio = {"entry": "torch", "speed": 11.0, "ci95": [10.8, 11.2], "size": 12.0}
    return [
        make_row("pytorch-fp32", 21.0, 0.92, engine="torch", size_bytes=90_000_000, parity=None),
        make_row("onnx-int8", 1.9, 0.915, default=True, ratio_to=ratio),
        make_row("onnx-fp32", 5.0, 0.914, size_bytes=28_000_000),
        make_row("onnx-int8", 1.6, 0.915, default=True, tokenization=False),
    ]


def test_page_has_every_row_and_loads_nothing(make_row: Make, tmp_path: Path) -> None:
    source, page = make(variants(make_row), tmp_path)
    assert sum(tag == "tr" and "data-key" in attrs for tag, attrs in page.tags) == 4
    assert not any("src" in attrs or tag in {"link", "iframe", "object"} for tag, attrs in page.tags)
    assert not re.search(r"https?://|url\(|@import", source)
    for words in ("onnx-int8", "11.0×", "12.0×", "−0.50 points", "91.50%", "bundle's default"):
        assert words in page.words


def test_policy_allows_only_its_own_script_and_style(make_row: Make, tmp_path: Path) -> None:
    source, page = make(variants(make_row), tmp_path)
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv")) or ""
    for kind in ("script", "style"):
        (body,) = re.findall(f"<{kind}>(.*?)</{kind}>", source, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any("style" in attrs or any(key.startswith("on") for key in attrs) for _, attrs in page.tags)


def test_hostile_strings_stay_text(make_row: Make, tmp_path: Path) -> None:
    row = make_row(variants(make_row)[0]["variant"])
    plain = sorted({tag for tag, _ in make([make_row(**extras(row, "x"))], tmp_path, "x")[1].tags})
    source, page = make([make_row(**extras(row, HOSTILE))], tmp_path, HOSTILE)
    assert sorted({tag for tag, _ in page.tags}) == plain
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "\u202e" not in source
    assert "<img src=x onerror=alert(2)>" in page.words


def extras(row: dict[str, Any], word: str) -> dict[str, Any]:
    device = dict.fromkeys(row["device"], word) | {
        "cores": 4,
        "memory_mb": 512,
        "isa": [word],
        "temperature_c": 3,
    }
    return {
        "bundle": word, "variant": word, "engine": word, "engine_version": word, "device": device,
        "simulated_profile": word, "precision": word, "entry": word, "started": word, "note": word,
        "versions": {word: word},
        "metric": {"name": word, "value": 0.5, "n": 3}, "providers": [word], "energy_source": word,
    }  # fmt: skip


def test_nulls_and_labels_are_said(make_row: Make, tmp_path: Path) -> None:
    rows = [
        make_row(
            latency_ms=None, metric=None, parity=None, cold_start_ms=None, peak_rss_mb=None, n=None,
            emulated=True, quick=True, simulated_profile="pi-zero", engine_version=None,
        )
    ]  # fmt: skip
    _, page = make(rows, tmp_path)
    for words in ("emulated: times say nothing", "simulated: pi-zero", "quick run", "–"):
        assert words in page.words


def test_one_section_a_device(make_row: Make, tmp_path: Path) -> None:
    other = make_row()
    other["device"] = {**other["device"], "name": "Phone 6"}
    _, page = make([make_row(), other], tmp_path)
    kinds = [attrs["class"] for tag, attrs in page.tags if tag == "section"]
    assert kinds == ["overview", "device", "device"]
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == ["#d0", "#d1"]


def test_no_rows_and_bad_rows(make_row: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        report([], tmp_path / "x.html")
    with pytest.raises(InputError, match="report: row 1: 'threads' is str"):
        report([make_row(threads="<b>")], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_front_is_what_nothing_beats(pairs: list[tuple[int, int]]) -> None:
    from bench_fakes import row

    rows = [row(p50=float(p50), accuracy=value / 10) for p50, value in pairs]
    front = figures.front(rows)
    places = {(figures.p50(one), figures.accuracy(one)) for one in front}
    for p50, value in pairs:
        beaten = any((a <= p50 and b >= value) and (a, b) != (p50, value) for a, b in pairs)
        assert ((float(p50), value / 10) in places) == (not beaten)


def test_a_lower_perplexity_is_better_and_no_share(make_row: Make, tmp_path: Path) -> None:
    rows = variants(make_row)
    for row, value in zip(rows, (20.0, 21.0, 25.0), strict=False):
        row["metric"] = {"name": "perplexity", "value": value, "n": 4096}
    source, page = make(rows, tmp_path)
    assert "21.00" in page.words and "+5.0%" in page.words
    assert "points</span>" not in source and "2100" not in page.words
    assert figures.accuracy(rows[0]) > figures.accuracy(rows[1])


def test_a_row_without_a_perplexity_does_not_drop_the_measured_ones(make_row: Make) -> None:
    best, worse, unknown = variants(make_row)[1:]
    for row, value in ((best, 20.0), (worse, 25.0)):
        row["metric"] = {"name": "perplexity", "value": value, "n": 4096}
    unknown["metric"] = None
    for row, p50 in ((best, 2.0), (worse, 1.0), (unknown, 3.0)):
        row["latency_ms"] |= {"p50": p50, "ci95": [p50, p50]}
    assert figures.choice([best, worse, unknown]) is best
    assert figures.choice([unknown]) is unknown
    assert figures.front([best, worse, unknown]) == [worse, best]


def test_why_says_what_beats_the_default(make_row: Make) -> None:
    default = make_row("onnx-int8", 2.0, 0.90, default=True)
    better = make_row("tflite-int8", 1.0, 0.91, size_bytes=1_000_000)
    quicker = make_row("tiny", 1.5, 0.80)
    assert "tflite-int8 beats it in this run" in figures.why(default, [default, better])
    assert "tiny is quicker, but 10.00 points less accurate" in figures.why(default, [default, quicker])
    assert figures.headline([better, default]) is default
    assert figures.headline([quicker, better]) is better
    assert figures.headline([make_row(engine="torch")]) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (1.934, "1.93"), (21.44, "21.4"), (1234.5, "1,234"), (0.0841, "0.0841"),
        (3e-9, "≤0.000001"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert figures.number(value) == shown


def test_not_quite_all_is_never_all() -> None:
    assert figures.percent(0.9999) == "99.9%"
    assert figures.percent(1.0) == "100.0%"


@given(st.floats(-5, 5), st.floats(0.01, 6), st.integers(3, 9))
def test_log_ticks_fit(low: float, span: float, most: int) -> None:
    ticks = plot.log_ticks(low, low + span, most)
    assert len(ticks) <= most
    assert ticks == sorted(ticks)


def test_extreme_rows_are_drawn(make_row: Make, tmp_path: Path) -> None:
    rows = [make_row(f"v{n}", 10.0**power, 0.5) for n, power in enumerate((-9, 0, 12))]
    _, page = make([*rows, make_row("v" * 300, size_bytes=0)], tmp_path)
    places = [
        value
        for tag, attrs in page.tags
        for key, value in attrs.items()
        if key in {"x", "y", "cx", "cy", "r"}
    ]
    assert len(places) > 20
    assert all(re.fullmatch(r"-?[\d.]+%?", value or "") for value in places)
