"""The page, in a real browser against the real service over tiny models."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from answers_client import GRAIN, OIL, served
from browsers import chromium

from apps.answers.models import Models
from apps.answers.service import create_app
from runtimes.confidence import Calibration

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = pytest.mark.browser

QUESTION = "Where is the refinery?"
SURE = Calibration(threshold=0.0, margin=0.0)
CLOSE = Calibration(threshold=0.0, margin=1.0)
SILENT = Calibration(threshold=1.0)
HTML = "<script>document.title='no'</script><img src=x onerror=\"document.title='no'\"> <b>oil</b> in barrels"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def opened(browser: Any, folder: Path, models: Models) -> Iterator[Callable[..., Any]]:
    """Opens the page of a service that judges by `calibration`; at the end nothing was complained of."""
    with contextlib.ExitStack() as stack:
        complaints: list[str] = []

        def open_page(calibration: Calibration = SURE, width: int = 1280) -> Any:
            judging = Models(models.reader, models.embedder, models.digest, calibration)
            port = stack.enter_context(served(create_app(folder, judging)))
            page = browser.new_page()
            stack.callback(page.close)
            page.set_viewport_size({"width": width, "height": 844})
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator(".model.ready")).to_be_visible()
            return page

        yield open_page
    assert complaints == []


def text_file(content: str | bytes, name: str) -> dict[str, Any]:
    data = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "text/plain", "buffer": data}


def drop(page: Any, files: dict[str, str]) -> None:
    """Drops files on the page, as the mouse would."""
    expect(page.locator("#drop")).to_be_visible()  # before, nothing is taken
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, content] of Object.entries(files)) {
                transfer.items.add(new File([content], name, { type: "text/plain" }));
            }
            return transfer;
        }""",
        files,
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": transfer})


def filled(page: Any, files: dict[str, str]) -> None:
    drop(page, files)
    expect(page.locator("#documents li")).to_have_count(len(files), timeout=30_000)
    expect(page.locator("#uploads li")).to_have_count(0, timeout=30_000)


def ask(page: Any, question: str = QUESTION) -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")


def test_an_answer_in_its_passage(opened: Callable[..., Any]) -> None:
    page = opened()
    filled(page, {"oil.txt": f"Zürich 🏔. {OIL}"})
    ask(page)
    answer = page.locator("#answers .answer").first
    expect(answer.locator("mark")).to_be_visible()
    assert answer.locator("mark").text_content() == answer.locator(".answer-text").text_content()
    assert answer.locator(".passage").text_content() == f"Zürich 🏔. {OIL}"
    expect(answer.locator("figcaption")).to_contain_text("oil.txt")
    expect(answer.locator(".confidence-text")).to_contain_text("%")
    expect(page.locator("#timing")).to_contain_text("1 passages read")
    answer.get_by_role("button", name="oil.txt").click()  # the whole document, at the same place
    expect(page.locator("#reader-text mark")).to_have_text(answer.locator("mark").text_content())
    page.click("#reader-close")
    expect(page.locator("#reader")).to_be_hidden()


def test_not_found_says_so(opened: Callable[..., Any]) -> None:
    page = opened(SILENT)
    ask(page)
    expect(page.locator("#not-found")).to_contain_text("No passage fits this question")
    filled(page, {"oil.txt": OIL})
    ask(page)
    expect(page.locator("#not-found")).to_contain_text("Not found in the documents")
    expect(page.locator("#not-found")).to_contain_text("1 passages were read")
    expect(page.locator("#answers .answer")).to_have_count(0)


def test_two_close_answers_and_the_question_back(opened: Callable[..., Any]) -> None:
    page = opened(CLOSE)
    filled(page, {"oil.txt": OIL, "grain.txt": GRAIN})
    ask(page)
    expect(page.locator("#ask-back-title")).to_contain_text("Which one is meant?")
    expect(page.locator(".choice")).to_have_count(2)
    expect(page.locator("#answers .answer:visible")).to_have_count(2)
    wanted = page.locator(".choice").nth(1)
    wanted.click()
    expect(page.locator("#answers .answer:visible")).to_have_count(1)
    expect(page.locator(".answer-text:visible")).to_have_text(wanted.locator("b").text_content())


def test_documents_come_with_progress_and_go(opened: Callable[..., Any]) -> None:
    page = opened()
    page.set_input_files(
        "#files", [text_file(GRAIN * 30, "grain.txt"), text_file(b"\xff\x00\xfe" * 99, "bad.txt")]
    )
    expect(page.locator("#uploads progress").first).to_be_visible()
    expect(page.locator("#documents li")).to_have_count(1, timeout=30_000)
    failed = page.locator("#uploads .failed")
    expect(failed).to_contain_text("bad.txt", timeout=30_000)
    failed.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#uploads li")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("1 document")
    page.get_by_role("button", name="Delete grain.txt").click()
    expect(page.locator("#documents li")).to_have_count(1)  # asked once more
    page.get_by_role("button", name="Delete grain.txt").click()
    expect(page.locator("#documents li")).to_have_count(0)


def test_html_in_documents_is_text(opened: Callable[..., Any]) -> None:
    page = opened()
    filled(page, {"<img src=x onerror=alert(1)>.txt": HTML})
    ask(page, "Where is the <b>oil</b>?")
    expect(page.locator("#answers .passage").first).to_have_text(HTML)
    page.locator("#documents .name").click()
    expect(page.locator("#reader-text")).to_have_text(HTML)
    assert page.locator("main img, main script, main b:not(.choice b), dialog img").count() == 0
    assert page.title() == "edgewise: answers"


@pytest.mark.parametrize(
    ("question", "line"),
    [("", "The question is empty; ask in a sentence"), ("why", "'why' is too short for a question")],
)
def test_questions_that_cannot_be_answered(opened: Callable[..., Any], question: str, line: str) -> None:
    page = opened()
    ask(page, question)
    expect(page.locator("#message")).to_contain_text(line)
    page.fill("#question", "Who?")
    expect(page.locator("#message")).to_be_hidden()


def test_collections(opened: Callable[..., Any]) -> None:
    page = opened()
    filled(page, {"oil.txt": OIL})
    page.fill("#make-name", "Bad Name")
    page.click("#make >> text=Make")
    expect(page.locator("#side-message")).to_contain_text("is no name for a collection")
    page.fill("#make-name", "manuals")
    page.click("#make >> text=Make")
    expect(page.locator("#collection")).to_have_value("manuals")
    expect(page.locator("#documents li")).to_have_count(0)
    page.select_option("#collection", "documents")
    expect(page.locator("#documents li")).to_have_count(1)
    page.select_option("#collection", "manuals")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#drop-collection")
    expect(page.locator("#collection option")).to_have_count(1)
    expect(page.locator("#documents li")).to_have_count(1)


def test_the_key_is_asked_for_and_decides_what_is_shown(
    opened: Callable[..., Any], keys: dict[str, str]
) -> None:
    page = opened()
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#columns")).to_be_hidden()
    page.fill("#key", keys["read"][:-1])
    page.keyboard.press("Enter")
    expect(page.locator("#key:invalid")).to_be_visible()
    assert (
        page.evaluate("document.getElementById('key').validationMessage")
        == "The API key is not the right one."
    )
    for role, may_write, may_make in (("read", False, False), ("write", True, False), ("admin", True, True)):
        page.fill("#key", keys[role])
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_be_focused()
        expect(page.locator("#columns")).to_be_visible()
        expect(page.locator("#make")).to_be_visible(visible=may_make)
        expect(page.locator("#drop")).to_be_visible(visible=may_write)
    ask(page)
    expect(page.locator("#not-found")).to_be_visible()


@pytest.mark.parametrize("width", [320, 390])
def test_phone_width_scrolls_only_down(opened: Callable[..., Any], width: int) -> None:
    page = opened(CLOSE, width)
    filled(page, {"oil.txt": OIL, f"{'w' * 150}.txt": f"{GRAIN} {'x' * 300}"})
    ask(page)
    expect(page.locator("#answers mark").first).to_be_visible()
    widest = "document.documentElement.scrollWidth"
    assert page.evaluate(widest) == width
    page.locator("#documents .name").first.click()
    assert page.evaluate(widest) == width
    page.goto(page.url + "docs")
    assert page.evaluate(widest) == width


def test_a_question_before_the_collections_are_there(opened: Callable[..., Any]) -> None:
    page = opened()
    filled(page, {"oil.txt": OIL})
    waiting: list[Any] = []
    page.route("**/collections", lambda route: waiting.append(route))  # noqa: PLW0108  # it must be a function
    page.reload()
    expect(page.locator("#model-text")).to_contain_text("·")
    ask(page)
    page.wait_for_timeout(200)
    assert waiting and page.locator("#answers .passage").count() == 0
    for one in waiting:
        one.continue_()
    expect(page.locator("#answers .passage").first).to_be_visible()
