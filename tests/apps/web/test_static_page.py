"""The offline page in a real Chromium: first visit, then no server at all."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium, need_browser, need_packages

from apps.web.static_page import assemble, main
from runtimes.errors import InputError

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_browser()
    need_packages()
    return assemble(tiny_bundle, tmp_path_factory.mktemp("static") / "site")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


class Host:
    """A host of static files that can be stopped and started at the same address."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(folder)))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def host(site: Path) -> Iterator[Host]:
    host = Host(site)
    yield host
    host.stop()


def ask(tab: Any, text: str) -> str:
    tab.get_by_label("Text", exact=True).fill(text)
    tab.get_by_role("button", name="Classify").click()
    tab.locator("#result[aria-busy]").wait_for(state="detached")
    return str(tab.locator("#label").inner_text())


@pytest.mark.parametrize("width", [390, 1280])
def test_it_answers_when_the_server_is_gone(host: Host, tiny_bundle: Path, width: int) -> None:
    from runtimes.load import load

    text = "grain exports rise"
    expected = load(tiny_bundle, threads=1)(text).label
    with chromium(viewport={"width": width, "height": 844}) as context:
        tab = context.new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: message.type == "error" and errors.append(message.text))
        tab.goto(f"http://127.0.0.1:{host.port}/")
        tab.get_by_text("ready, offline too").wait_for()
        assert ask(tab, text) == expected
        host.stop()
        tab.reload()
        tab.get_by_text("ready, offline too").wait_for()
        assert ask(tab, text) == expected
        timing = tab.locator("#timing").inner_text()
        assert "ms in this tab, by onnx-int8 on onnxruntime-web" in timing
        assert tab.locator("#bars li").count() == 4
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.get_by_label("Text", exact=True).fill("<b> </b>")
        tab.keyboard.press("Control+Enter")
        tab.get_by_text("is empty; give at least one word").wait_for()
        assert errors == []


def test_it_can_be_installed(host: Host, site: Path) -> None:
    manifest = json.loads((site / "manifest.webmanifest").read_bytes())
    assert {"name", "short_name", "start_url", "display", "icons"} <= set(manifest)
    assert all((site / icon["src"]).is_file() for icon in manifest["icons"])
    with chromium() as context:
        tab = context.new_page()
        session = context.new_cdp_session(tab)
        tab.goto(f"http://127.0.0.1:{host.port}/")
        tab.get_by_text("ready, offline too").wait_for()
        assert session.send("Page.getAppManifest")["errors"] == []
        assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] in (
            [],
            [{"errorId": "in-incognito", "errorArguments": []}],  # as every context of a test is
        )


def test_a_file_that_was_altered_is_refused(site: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(site, tmp_path / "site")
    with (copy / "edgewise/text.js").open("ab") as stream:
        stream.write(b"\n// altered\n")
    host = Host(copy)
    try:
        with chromium() as context:
            tab = context.new_page()
            tab.goto(f"http://127.0.0.1:{host.port}/")
            tab.get_by_text("not ready").wait_for()
            assert tab.get_by_role("button", name="Classify").is_disabled()
    finally:
        host.stop()


def test_litert_runs_in_the_page_too(tiny_bundle: Path, tmp_path: Path) -> None:
    host = Host(assemble(tiny_bundle, tmp_path / "site", "tflite-dynamic_wi8_afp32"))
    try:
        with chromium() as context:
            tab = context.new_page()
            tab.goto(f"http://127.0.0.1:{host.port}/")
            tab.get_by_text("ready, offline too").wait_for()
            assert ask(tab, "grain exports rise")
            assert "@litertjs/core" in tab.locator("#timing").inner_text()
    finally:
        host.stop()


def test_a_folder_that_is_not_empty_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        assemble(tiny_bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_errors_of_the_command_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["static_page", str(tmp_path / "none"), str(tmp_path / "out")])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
