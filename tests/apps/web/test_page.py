"""The page, in a real browser against a real server."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.web.config import ServeConfig

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path; install Debian's chromium"),
]

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TEXT = "The striker scored two goals, and shares of the club rose."
LINES = 'The striker scored goals\n\nShares and profit\n=1+1, the "comet"\r\nMinisters, again\n'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


class Opened:
    """A page, and what the browser complained of while it was open."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)


@pytest.fixture
def opened(browser: Any, port: int) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    opened = Opened(page)
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator(".model.ready")).to_be_visible()
    yield opened
    page.close()


@pytest.fixture
def page(opened: Opened) -> Any:
    return opened.page


def text_file(content: str | bytes, name: str = "headlines.txt") -> dict[str, Any]:
    data = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "text/plain", "buffer": data}


def drop(page: Any, content: str, name: str = "headlines.txt") -> None:
    """Drops a file on the page, as the mouse would."""
    transfer = page.evaluate_handle(
        """([content, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([content], name, { type: "text/plain" }));
            return transfer;
        }""",
        [content, name],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#text", event, {"dataTransfer": transfer})


def classify(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.click("#go")
    expect(page.locator("#words .word").first).to_be_visible()


def widest(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_page_says_what_runs(page: Any) -> None:
    expect(page.locator("#model-text")).to_have_text("news · onnx-int8 · ONNX Runtime 1.23.0")
    expect(page.locator("#intro-text")).to_contain_text("Business, Sports, World and Sci/Tech")
    expect(page.locator("#count")).to_have_text("0 / 2,000")
    expect(page.locator("#key-row")).to_be_hidden()


def test_classify_with_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.fill("#text", TEXT)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#top")).to_have_text("Sports")
    bars = page.locator("#bars li")
    expect(bars).to_have_count(4)
    scores = [float(text.rstrip(" %")) for text in page.locator("#bars .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(100, abs=0.3)
    expect(page.locator("#timing")).to_contain_text("ms in the model")
    expect(page.locator("#timing")).to_contain_text("onnx-int8 on ONNX Runtime 1.23.0, 1 thread")
    page.wait_for_function(  # the bars have grown to what the figures say
        """() => [...document.querySelectorAll(".bar")].every((bar) => {
            const [fill, track] = [".fill", ".track"].map((name) => bar.querySelector(name).offsetWidth);
            return Math.abs(fill / track * 100 - parseFloat(bar.querySelector(".score").textContent)) < 1.5;
        })"""
    )
    assert opened.complaints == []


def test_words_are_marked_and_tell_their_figure(page: Any) -> None:
    classify(page, TEXT)
    assert page.text_content("#words") == TEXT
    assert page.locator("#words .for").all_text_contents() == ["striker", "goals"]
    assert page.locator("#words .against").all_text_contents() == ["shares"]
    expect(page.locator("#legend")).to_have_text("for Sports against")
    expect(page.locator("#detail")).to_contain_text("For Sports: ")
    page.hover("#words .for >> nth=0")
    expect(page.locator("#detail")).to_contain_text("points: without “striker”, Sports falls by")
    page.click("#words .against")
    expect(page.locator("#detail")).to_contain_text("points: without “shares”, Sports rises by")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail")).to_contain_text("without “of”")


def test_offsets_hold_beyond_the_basic_plane(page: Any) -> None:
    text = "🏆🏆 the striker 🚀 and \u0065\u0301 shares"
    classify(page, text)
    assert page.text_content("#words") == text
    assert set(page.locator("#words .for, #words .against").all_text_contents()) == {"striker", "shares"}


def test_markup_in_a_text_is_text(opened: Opened) -> None:
    page = opened.page
    text = 'goals <script>window.hit = 1</script><img src=x onerror="window.hit = 1"> <b>coach</b>'
    classify(page, text)
    assert page.text_content("#words") == text
    drop(page, f"{text}\n{text}")
    page.get_by_label("One text per line").check(force=True)
    page.click("#go")
    expect(page.locator("#rows tr")).to_have_count(2)
    assert page.locator("#rows .line-text").first.text_content() == text
    assert page.locator("main script, main img, main b:not(#shares b)").count() == 0
    assert page.evaluate("window.hit") is None
    assert opened.complaints == []


def test_an_example_classifies_at_once(page: Any) -> None:
    page.get_by_role("button", name="Space").click()
    expect(page.locator("#top")).to_have_text("Sci/Tech")


def test_dropped_file_is_read(page: Any) -> None:
    drop(page, "Ministers met at the border")
    expect(page.locator("#text")).to_have_value("Ministers met at the border")
    expect(page.locator("#lines")).to_be_hidden()
    page.click("#go")
    expect(page.locator("#top")).to_have_text("World")


def test_many_lines_become_a_table_and_a_csv(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    page.set_input_files("#file", text_file(LINES * 3))  # 12 lines: two requests of at most 8
    expect(page.locator("#lines-text")).to_have_text("12 lines")
    page.get_by_label("One text per line").check(force=True)
    expect(page.locator("#go")).to_have_text("Classify 12 lines")
    page.click("#go")
    expect(page.locator("#csv")).to_be_visible()
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(12)
    assert rows.first.locator("td").all_text_contents()[:3] == ["1", "The striker scored goals", "Sports"]
    assert rows.nth(1).locator("td").first.text_content() == "3"
    assert page.locator("#shares li").all_text_contents() == [
        "Business 3", "Sports 3", "World 3", "Sci/Tech 3",
    ]  # fmt: skip
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "topics.csv")
    saved = (tmp_path / "topics.csv").read_text("utf-8-sig")
    table = list(csv.DictReader(io.StringIO(saved)))
    assert [row["label"] for row in table[:4]] == ["Sports", "Business", "Sci/Tech", "World"]
    assert table[2]["text"] == '\'=1+1, the "comet"'  # no formula in a spreadsheet
    assert float(table[0]["score"]) == float(table[0]["score: Sports"])
    assert opened.complaints == []


def test_batch_waits_when_it_is_asked_to(page: Any) -> None:
    refusals = []

    def once(route: Any) -> None:
        if refusals:
            route.continue_()
            return
        refusals.append(1)
        headers = {"Retry-After": "1", "Content-Type": "application/json"}
        route.fulfill(status=429, headers=headers, body='{"error": "over 1 request a minute"}')

    page.route("**/classify", once)
    page.set_input_files("#file", text_file(LINES))
    page.get_by_label("One text per line").check(force=True)
    page.click("#go")
    expect(page.locator("#rows tr")).to_have_count(4)
    assert refusals
    expect(page.locator("#message")).to_be_hidden()


def test_batch_can_be_stopped_and_keeps_what_it_has(page: Any, model: Any) -> None:
    page.set_input_files("#file", text_file("goals\n" * 20))
    page.get_by_label("One text per line").check(force=True)
    model.go.clear()
    page.click("#go")
    page.click("#stop")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#message")).to_be_hidden()
    expect(page.locator("#go")).not_to_have_class("primary busy")
    model.go.set()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "empty.txt", "“empty.txt” is empty."),
        (b"caf\xe9", "latin.txt", "“latin.txt” is not text in UTF-8. Save it as UTF-8 text"),
        (b"PK\x00\x01", "archive.txt", "“archive.txt” is not a text file."),
        (b"a" * 5_000_001, "huge.txt", "“huge.txt” has 5,000,001 bytes and 5,000,000 are allowed."),
    ],
)
def test_bad_files(page: Any, content: bytes, name: str, message: str) -> None:
    page.set_input_files("#file", text_file(content, name))
    expect(page.get_by_role("alert")).to_contain_text(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The text is empty. Write or paste something"),
        ("  \n ", "The text is empty. Write or paste something"),
        ("a" * 2001, "The text has 2,001 characters and 2,000 are allowed. Shorten it."),
        ("<p></p>", "is empty, or only white space and markup"),  # found by the service
    ],
)
def test_texts_that_cannot_be_classified(page: Any, text: str, message: str) -> None:
    classify(page, TEXT)
    page.fill("#text", text)
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text(message)
    page.fill("#text", "Goals")
    expect(page.locator("#message")).to_be_hidden()


def test_an_error_takes_the_answer_to_another_text_away(page: Any, model: Any) -> None:
    classify(page, TEXT)
    model.limits = {}
    model.scores = None  # the engine breaks
    page.fill("#text", "Another text")
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("The service failed inside")
    expect(page.locator("#answer")).to_be_hidden()
    expect(page.locator("#why")).to_be_hidden()


def test_service_gone(page: Any) -> None:
    page.route("**/classify", lambda route: route.abort())
    page.fill("#text", TEXT)
    page.click("#go")
    expect(page.get_by_role("alert")).to_have_text("The service does not answer; is it still running?")


class TestWithKey:
    @pytest.fixture
    def config(self, key: str) -> ServeConfig:
        return ServeConfig(port=0, api_key=key)

    def test_the_key_is_asked_for_and_used(self, page: Any, key: str) -> None:
        page.fill("#text", TEXT)
        page.click("#go")
        expect(page.get_by_role("alert")).to_contain_text("This service asks for its API key")
        expect(page.locator("#key")).to_be_focused()
        page.fill("#key", "ключ")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The API key holds characters that cannot be sent")
        page.fill("#key", key[:-1])
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The API key is not the right one.")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        expect(page.locator("#top")).to_have_text("Sports")
        expect(page.locator("#message")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390])
def test_phone_width_scrolls_only_down(browser: Any, port: int, width: int, scheme: Any) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator(".model.ready")).to_be_visible()
    assert widest(page) == width
    classify(page, TEXT + " " + "w" * 300)
    expect(page.locator("#top")).to_be_in_viewport()
    assert widest(page) == width
    page.tap("#words .for >> nth=0")
    expect(page.locator("#detail")).to_contain_text("without “striker”")
    page.set_input_files("#file", text_file(LINES + "x" * 400))
    page.get_by_label("One text per line").check(force=True)
    page.click("#go")
    expect(page.locator("#rows tr")).to_have_count(5)
    assert widest(page) == width
    page.goto(f"http://127.0.0.1:{port}/docs")
    assert widest(page) == width
    page.close()


def test_dark_and_light_differ_and_can_be_read(browser: Any, port: int) -> None:
    """Contrast of the running text, of the marked words and of the button: at least 4.5 to 1 (WCAG AA)."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(f"http://127.0.0.1:{port}/")
        classify(page, TEXT)
        for selector in (
            ".intro p",
            "#top",
            ".bar:not(.best) .score",
            "#go span",
            ".meta",
            "#detail",
            "footer",
        ):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        page.close()


def contrast(page: Any, selector: str) -> float:
    return page.evaluate(
        """(selector) => {
            const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
                .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const element = document.querySelector(selector);
            let back = element;
            while (rgb(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
            const pair = [getComputedStyle(element).color, getComputedStyle(back).backgroundColor]
                .map((colour) => light(rgb(colour))).sort((one, other) => other - one);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
        }""",
        selector,
    )
