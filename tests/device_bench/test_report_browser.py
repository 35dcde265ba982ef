"""The page in a real browser: nothing runs over its edge, the marks and the table answer."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_bench.report import report

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page(make_row: Callable[..., dict[str, Any]], tmp_path: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    rows = [
        make_row("onnx-int8", 1.9, 0.90, default=True, tokenization=True),
        make_row("tflite-dynamic_wi8_afp32", 1.2, 0.89, tokenization=True, engine="ai_edge_litert"),
        make_row("onnx-int8", 1.5, 0.90, default=True, tokenization=False),
    ]
    out = report(rows, tmp_path / "page.html", "A rather long title of a bench report, in full")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 390, "height": 844})
        errors: list[str] = []
        opened.on("console", lambda message: message.type == "error" and errors.append(message.text))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(out.as_uri())
        yield opened
        browser.close()
        assert errors == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_runs_over_the_edge(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_switch_sort_and_keyboard(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    names = page.locator("tbody tr:visible .name")
    assert names.all_inner_texts() == ["tflite-dynamic_wi8_afp32", "onnx-int8"]
    page.get_by_role("button", name="Accuracy").click()
    assert names.all_inner_texts() == ["onnx-int8", "tflite-dynamic_wi8_afp32"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.locator(".pareto.wide .point:visible").first.focus()
    assert page.locator("#tip").is_visible()
    assert page.locator("tbody tr.on").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.get_by_role("button", name="Model alone, tokens ready").click()
    assert names.all_inner_texts() == ["onnx-int8"]


def test_tap_on_a_phone(page: Any) -> None:
    page.locator(".pareto.narrow .point:visible .disc").first.dispatch_event(
        "pointerdown", {"clientX": 200, "clientY": 300, "bubbles": True}
    )
    assert "ms" in page.locator("#tip").inner_text()
    page.locator(".sorter select").select_option(label="Accuracy")
    assert page.locator("tbody tr:visible .name").first.inner_text() == "onnx-int8"


def test_filters_take_marks_and_lines_away(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    names, marks = page.locator("tbody tr:visible .name"), page.locator(".pareto.wide:visible .point:visible")
    assert (names.count(), marks.count()) == (2, 2)
    page.get_by_role("checkbox", name="LiteRT").uncheck()
    assert names.all_inner_texts() == ["onnx-int8"] and marks.count() == 1
    page.get_by_role("checkbox", name="LiteRT").check()
    assert (names.count(), marks.count()) == (2, 2)


def test_devices_and_measures(make_row: Callable[..., dict[str, Any]], page: Any, tmp_path: Path) -> None:
    phone = {**make_row()["device"], "name": "Phone"}
    rows = [make_row(), make_row("onnx-fp32", 4.0, 0.91), make_row(p50=7.0, device=phone)]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(report(rows, tmp_path / "devices.html").as_uri())
    seen = page.locator("#overview .pareto.wide:visible .point:visible")
    front = page.locator("#overview .pareto.wide:visible .front")
    assert seen.count() == 3
    before = front.get_attribute("d")
    page.get_by_role("checkbox", name="Board 5").uncheck()
    assert seen.count() == 1 and page.locator("section.device:visible h2").all_inner_texts() == ["Phone"]
    assert front.get_attribute("d") != before
    page.locator(".measure select").select_option("size")
    assert page.locator("[data-measure=size]").is_visible() and page.locator("[data-measure=p50]").is_hidden()
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
