"""The page, in a real browser against the real service over a tiny detector."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browsers import chromium, lacking
from monitor_client import learned, send, served, spiked
from tiny_detector import WARM_UP, waves

from apps.monitor.charts import find_charts
from apps.monitor.config import MonitorConfig
from apps.monitor.service import create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = pytest.mark.browser

LOOSE = MonitorConfig(per_minute=100_000, warm_up=WARM_UP)


@pytest.fixture(scope="module")
def charts() -> Path:
    found = find_charts()
    if found is None:
        lacking("uPlot is not in the cache and cannot be fetched")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def page_of(browser: Any, folder: Path, detector: Any, charts: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page of a service, with a client to feed it; at the end nothing was complained of."""
    with contextlib.ExitStack() as stack:
        complaints: list[str] = []

        def open_page(width: int = 1280, key: str = "") -> tuple[Any, httpx.Client]:
            port = stack.enter_context(served(create_app(folder, detector, "tiny", LOOSE)))
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            address = f"http://127.0.0.1:{port}"
            client = stack.enter_context(httpx.Client(base_url=address, trust_env=False, headers=headers))
            until = client.get("/health").json
            while not until()["charts"]:
                until = client.get("/health").json
            page = browser.new_page()
            stack.callback(page.close)
            page.set_viewport_size({"width": width, "height": 844})
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"{address}/")
            return page, client

        yield open_page
    assert complaints == []


def alarmed(client: httpx.Client) -> int:
    """A series with two channels and one closed alarm; how many points it has."""
    count = learned(client, "pump", 2)
    values = np.concatenate([spiked(60, 30, count, 2), waves(120, 2, start=count + 60)])
    send(client, "pump", values, count)
    return count + 180


def ink(page: Any, selector: str) -> int:
    """How many pixels of a canvas are drawn on."""
    return int(
        page.locator(selector).evaluate(
            """(canvas) => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let at = 3; at < data.length; at += 4) count += data[at] > 0;
                return count;
            }"""
        )
    )


def test_from_nothing_to_a_live_chart(page_of: Callable[..., Any]) -> None:
    page, client = page_of()
    expect(page.locator("#empty")).to_contain_text("No series yet")
    send(client, "pump", waves(10))
    expect(page.locator("#view-name")).to_have_text("pump")
    expect(page.locator("#learning-text")).to_have_text(f"Learning what is normal: 10 of {WARM_UP} points")
    send(client, "pump", waves(WARM_UP, start=10), 10)
    expect(page.locator("#view-state")).to_have_text("normal")
    expect(page.locator("#learning")).to_be_hidden()
    send(client, "pump", waves(60, start=WARM_UP + 10), WARM_UP + 10)
    expect(page.locator("#charts .plot")).to_have_count(2)
    expect(page.locator("#charts figcaption").first).to_contain_text("expected")
    newest = waves(1, start=900)[0, 0]
    send(client, "pump", np.array([[newest]]), 900)
    expect(page.locator("#charts figcaption").first).to_contain_text(f"seen {newest:.2f}".rstrip("0"))
    assert ink(page, "#charts .plot:first-child canvas") > 500
    assert page.evaluate("getComputedStyle(document.querySelector('.u-over')).position") == "absolute"


def test_an_alarm_is_shaded_explained_and_acknowledged(page_of: Callable[..., Any]) -> None:
    page, client = page_of()
    count = alarmed(client)
    expect(page.locator("#alarms .alarm")).to_have_count(1)
    expect(page.locator("#alarms .alarm")).to_contain_text("not acknowledged")
    page.locator("#alarms .alarm").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#why")).to_be_visible()
    expect(page.locator("#why-rows tr")).to_have_count(2)
    expect(page.locator("#why-rows tr").first).to_contain_text("c0")
    expect(page.locator("#why-text")).to_contain_text("What spoke for it: ")
    expect(page.locator("#why-text")).to_contain_text("values were not as forecast just then (")
    expect(page.locator("#why-charts .plot").first).to_be_visible()
    assert ink(page, "#why-charts canvas >> nth=0") > 500
    page.fill("#note", "<b>valve</b>")
    page.get_by_role("button", name="Acknowledge", exact=True).click()
    expect(page.locator("#acked")).to_contain_text("Acknowledged by no key")
    expect(page.locator("#acked")).to_contain_text("“<b>valve</b>”")
    page.keyboard.press("Escape")
    expect(page.locator("#why")).to_be_hidden()
    expect(page.locator("#alarms .alarm")).to_contain_text("acknowledged by no key")
    send(client, "pump", spiked(800, 780, count, 2), count)
    expect(page.locator("#news")).to_have_text("New alarm in pump")
    expect(page.locator("#series .row")).to_have_class("row is-alarm")


def test_the_slider_tells_what_it_would_have_done(page_of: Callable[..., Any]) -> None:
    page, client = page_of()
    alarmed(client)
    expect(page.locator("#preview")).to_contain_text("This threshold: 1 alarm in the last 3 minutes")
    expect(page.locator("#apply")).to_be_disabled()
    page.locator("#threshold").focus()
    page.keyboard.press("End")
    expect(page.locator("#preview")).to_contain_text("It would have raised 0 alarms")
    expect(page.locator("#preview")).to_contain_text("the present one 1")
    learned_one = client.get("/series/pump/threshold").json()["learned"]
    page.get_by_role("button", name="Set this threshold").click()
    expect(page.locator("#learned-threshold")).to_be_visible()
    assert client.get("/series/pump").json()["threshold"] > 5 * learned_one
    page.click("#learned-threshold")
    expect(page.locator("#learned-threshold")).to_be_hidden()
    assert client.get("/series/pump").json()["threshold"] == learned_one
    page.locator("#log-card summary").click()
    expect(page.locator("#log li")).to_have_count(3)


def test_the_list_finds_and_the_address_remembers(page_of: Callable[..., Any]) -> None:
    page, client = page_of()
    for number in range(12):
        send(client, f"s{number:02d}", waves(3))
    expect(page.locator("#series .row")).to_have_count(12)
    page.fill("#search", "07")
    expect(page.locator("#series .row")).to_have_count(1)
    page.locator("#series .row").click()
    expect(page.locator("#view-name")).to_have_text("s07")
    page.reload()
    expect(page.locator("#view-name")).to_have_text("s07")


def test_the_key_is_asked_for_and_decides_what_can_be_done(
    page_of: Callable[..., Any], keys: dict[str, str]
) -> None:
    page, client = page_of(key=keys["write"])
    expect(page.locator("#key")).to_be_focused()
    alarmed(client)
    page.fill("#key", keys["read"][:-1])
    page.keyboard.press("Enter")
    expect(page.locator("#key:invalid")).to_be_visible()
    page.fill("#key", keys["read"])
    page.keyboard.press("Enter")
    expect(page.locator("#view-name")).to_have_text("pump")
    expect(page.locator("#threshold-buttons")).to_be_hidden()
    page.locator("#alarms .alarm").click()
    expect(page.locator("#why-rows tr")).to_have_count(2)
    expect(page.locator("#ack-form")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 390])
def test_phone_width_scrolls_only_down(page_of: Callable[..., Any], width: int) -> None:
    page, client = page_of(width)
    alarmed(client)
    send(client, "x" * 64, waves(3, 2), channels=["y" * 64, "z"])
    widest = "document.documentElement.scrollWidth"
    expect(page.locator("#charts canvas").first).to_be_visible()
    assert page.evaluate(widest) == width
    page.locator("#alarms .alarm").click()
    expect(page.locator("#why-charts canvas").first).to_be_visible()
    assert page.evaluate(widest) == width
    page.keyboard.press("Escape")
    page.locator("#series .row", has_text="xxx").click()
    expect(page.locator("#view-name")).to_have_text("x" * 64)
    assert page.evaluate(widest) == width
    page.goto(page.url.split("#")[0] + "docs")
    assert page.evaluate(widest) == width


def test_without_the_charts_the_page_says_so(
    page_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, client = page_of()
    client.get("/").raise_for_status()
    page.route("**/charts/*", lambda route: route.abort())
    alarmed(client)
    page.reload()
    expect(page.locator("#no-charts")).to_contain_text("The charting library is not here")
    expect(page.locator("#no-charts")).to_contain_text("Newest:")
    page.locator("#alarms .alarm").click()
    expect(page.locator("#why-rows tr")).to_have_count(2)


def test_a_changed_library_is_not_run(page_of: Callable[..., Any]) -> None:
    page, client = page_of()
    alarmed(client)
    script = {"status": 200, "content_type": "text/javascript", "body": "window.uPlot = () => {}"}
    page.route("**/charts/*.js", lambda route: route.fulfill(**script))
    page.reload()
    expect(page.locator("#no-charts")).to_be_visible()


def test_the_service_without_npm(
    folder: Path, detector: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from monitor_client import client_of

    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with client_of(create_app(folder, detector, "tiny", LOOSE)) as client:
        assert client.get("/charts/uPlot.min.css").status_code == 404
        assert client.get("/health").json()["charts"] is False
        assert client.get("/charts/..%2fpackage.json").status_code == 404
