"""The page about series: what it says and draws, and that a browser shows it whole, on a phone too."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsers import chromium

from apps.monitor.explore import duration, explore, main
from trainers.series import Series


def waves(name: str = "pump <1>", channels: int = 2) -> Series:
    points = 900
    values = np.sin(np.arange(points)[:, None] * 2 * np.pi / 96 + np.arange(channels))
    values = values + 0.05 * np.random.default_rng(0).normal(size=values.shape)
    labels = np.zeros(points, bool)
    labels[600:650] = True
    values[300:330, 0] = np.nan
    names = tuple(f"channel {i}" for i in range(channels))
    times = 1_767_225_600 + np.arange(points) * 900.0
    return Series(name, "pumps", times, values, names, labels, 450, 900.0, {"repeated": 3, "unordered": 0})


def test_the_page_says_and_draws_what_is_there(tmp_path: Path) -> None:
    page = explore("pumps", [waves(), waves("second", 9)], tmp_path / "out" / "page.html").read_text()
    said_there = ["900 points of 15 min", "9.38 d in all", "3 repeated", "pump &lt;1&gt;", "3.3%"]
    said_there += ["3 more channels are not drawn", "its day, by hour UTC", "<td>channel 0<"]
    for said in said_there:
        assert said in page, said
    assert "unordered" not in page
    (lag,) = set(re.findall(r"channel 0 repeats after about (\d+) points", page))
    assert int(lag) == pytest.approx(96, abs=3)
    assert page.count("<svg") == 4
    assert not re.search(r"(src|href)=[\"']?http", page)  # nothing is fetched


def test_the_same_series_give_the_same_page(tmp_path: Path) -> None:
    first = explore("pumps", [waves()], tmp_path / "a.html").read_bytes()
    assert explore("pumps", [waves()], tmp_path / "b.html").read_bytes() == first


def test_still_and_empty_channels_and_missing_labels_are_drawn(tmp_path: Path) -> None:
    still = waves()
    still.values[:] = 4.0
    still.values[:, 1] = np.nan
    page = explore("still", [replace(still, labels=None)], tmp_path / "a.html").read_text()
    assert "Nothing moves in channel 0" in page
    assert "100.0%" in page


def test_of_many_series_some_are_drawn(tmp_path: Path) -> None:
    page = explore("many", [waves(f"s{i}", 1) for i in range(60)], tmp_path / "a.html").read_text()
    assert "24 of 60 series are drawn" in page
    assert page.count("<section>") == 24
    assert "<h2>s0</h2>" in page
    assert "<h2>s59</h2>" in page


@pytest.mark.parametrize(
    ("seconds", "said"), [(300, "5 min"), (86400, "1 d"), (0.0078125, "7.81 ms"), (1, "1 s"), (5400, "1.5 h")]
)
def test_durations_are_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_command_takes_files_and_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("time,cpu\n" + "".join(f"{i * 60},{i % 7}\n" for i in range(100)))
    monkeypatch.setattr("sys.argv", ["explore", str(file), "-o", str(tmp_path / "page.html")])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    file.write_text("nothing\n")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1000])
def test_a_browser_shows_it_whole(tmp_path: Path, width: int) -> None:
    name = "a_very_long_name_without_any_place_to_break_it_in_two"
    page = explore(name, [waves(name), waves("second", 9)], tmp_path / "page.html")
    faults: list[str] = []
    with chromium(viewport={"width": width, "height": 900}) as context:
        tab = context.new_page()
        tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [drawing.bounding_box() for drawing in tab.locator("svg").all()]
    assert len(boxes) == 4
    assert all(box and box["width"] > 300 and box["height"] > 60 for box in boxes)
    assert not faults
