"""A browser as a device: a page on loopback is the runner, in a Chromium of ours or wherever it is opened."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from device_bench import machine
from device_bench.devices import Progress, browser_rows, npm
from device_bench.devices.host import quiet
from device_bench.devices.local import LIVE
from device_bench.devices.pages import Page
from runtimes import errors
from runtimes.errors import DeviceError, EngineError, InputError

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtimes/web"
BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "microsoft-edge", "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)  # fmt: skip
START_SECONDS = 60.0
OPEN_SECONDS = 600.0
FLAGS = (
    "--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-breakpad",
    "--disable-default-apps", "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--password-store=basic", "--use-mock-keychain",
    "--enable-blink-features=ForceEagerMeasureMemory",  # else memory is told up to a minute later
)  # fmt: skip


# Ends the browser and removes its profile when standard input ends: by `close`, or because we were killed.
WATCHER = """
import os, shutil, signal, sys, time
sys.stdin.read()
pid, profile = int(sys.argv[1]), sys.argv[2]
try:
    os.killpg(pid, signal.SIGKILL) if hasattr(os, "killpg") else os.kill(pid, signal.SIGTERM)
except OSError:
    pass
until = time.monotonic() + 10  # its children may still be writing there
while os.path.exists(profile) and time.monotonic() < until:
    shutil.rmtree(profile, ignore_errors=True)
    time.sleep(0.05)
"""


class Started:
    """A browser of ours in a profile of its own. Closed, nothing of it is left."""

    def __init__(self, binary: str, url: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="edgewise-browser-")
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        command = [
            binary,
            *FLAGS,
            *(["--no-sandbox"] if root else []),
            f"--user-data-dir={self._profile}",
            url,
        ]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, "TMPDIR": self._profile},
            )  # fmt: skip
        except OSError as error:
            shutil.rmtree(self._profile, ignore_errors=True)
            raise DeviceError(
                f"browser: {binary} does not start ({error.strerror}); name another one in EDGEWISE_BROWSER"
            ) from None

        LIVE.add(self._process)
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-c", WATCHER, str(self._process.pid), self._profile],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def gone(self) -> str | None:
        """Why it went away, if it did."""
        if (code := self._process.poll()) is None:
            return None
        hint = "look at its memory and start again" if code else "is it a browser? EDGEWISE_BROWSER names one"
        return f"the browser ended (code {code}); {hint}"

    def close(self) -> None:
        """The watcher ends its process group and removes the profile."""
        LIVE.discard(self._process)
        self._process.poll()
        self._watcher.communicate()
        self._process.wait()


class BrowserDevice:
    """The page that is served. `started`: the browser that we opened it in, None where others open it."""

    def __init__(self, name: str, page: Page, started: Started | None, undo: object = None) -> None:
        self.name = name
        self.url = page.url
        self._page = page
        self._started = started
        self._undo = undo
        self._about: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Also "browser", "isolated" (whether it can have threads) and "webgpu"."""
        if self._about is None:
            told = self._ask({"do": "describe"}, quiet)
            self._about = browser_rows.describe(told, machine.describe() if self._started else None)
        return self._about

    def push(self, files: Mapping[str, Path | bytes]) -> None:
        """Nothing is copied: the page fetches the files where they lie."""
        self._page.files.update(files)

    def provide(self, engines: Sequence[str], progress: Progress = quiet) -> list[str]:
        has = [engine for engine in engines if engine in npm.PACKAGES]
        for name, source in npm.served(has, lambda line: progress(f"{self.name}: {line}")).items():
            self._page.files[f"web/engines/{name}"] = source
        return has

    def run(self, request: dict[str, Any], progress: Progress = quiet) -> dict[str, Any]:
        if request["do"] == "describe":
            return self.describe()
        if not all(isinstance(text, str) for text in request["texts"]):
            raise InputError(f"{self.name}: pages answer texts, not pairs or numbers; take another")
        if request["do"] == "answers":
            told = self._ask(request, progress)
            self._say_left(told["left"], bool(told["variants"]), progress)
            return {"variants": told["variants"]}
        if request["do"] == "bench":
            return {"rows": self._bench(request, progress)}
        raise InputError(f"{self.name}: no action {request['do']!r} in a browser")

    def _bench(self, request: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
        if request["config"].get("sustained"):
            raise InputError(f"{self.name}: a page has no sustained mode; bench it without")
        bundle = browser_rows.opened(self._page.files, str(request["bundle"]))
        asked = browser_rows.request(request, bundle, self.describe()["device"]["cores"])
        told = self._ask(asked, progress)
        self._say_left(told["left"], bool(told["entries"]), progress)
        return browser_rows.rows(told, request, asked, bundle, self.describe())

    def _ask(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        gone = self._started.gone if self._started else lambda: None
        answer = self._page.ask(request, progress, gone, START_SECONDS if self._started else OPEN_SECONDS)
        if "error" in answer:
            kind = errors.named(answer["error"], EngineError)
            raise kind(f"{self.name}: {' '.join(str(answer.get('message')).split())[:500]}")
        return answer

    def _say_left(self, left: dict[str, str], some: bool, progress: Progress) -> None:
        for name, reason in left.items():
            if not some:
                raise EngineError(f"{self.name}: {name} does not run there: {reason}")
            progress(f"{self.name}: left out: {name}: {reason}")

    def pull(self, name: str) -> bytes:
        source = self._page.files.get(name)
        if source is None:
            raise DeviceError(f"{self.name}: no file {name}")
        return source if isinstance(source, bytes) else source.read_bytes()

    def path(self, name: str) -> str:
        return name

    def close(self) -> None:
        if self._started:
            self._started.close()
        self._page.close()
        if callable(self._undo):
            self._undo()
            self._undo = None


def open(address: str = "browser", opener: Callable[[str], object] | None = None) -> BrowserDevice:
    """The bench page, in a browser that is found here, or where `opener` opens its URL (a phone, say).

    What `opener` returns is called when the device is closed, if it can be. Without either, the URL is
    printed for a person to open. The server is on 127.0.0.1, on the port that the URL names.
    Raises DeviceError.
    """
    page = Page(address, site())
    started, undo = None, None
    try:
        if opener is not None:
            undo = opener(page.url)
        elif binary := find():
            started = Started(binary, page.url)
        else:
            line = f"{address}: no Chrome, Chromium or Edge is found; open {page.url}"
            print(line, file=sys.stderr, flush=True)
    except BaseException:
        page.close()
        raise
    return BrowserDevice(address, page, started, undo)


def find() -> str | None:
    """The browser to start: EDGEWISE_BROWSER, else the first that is installed."""
    named = os.environ.get("EDGEWISE_BROWSER")
    if named:
        found = shutil.which(named)
        if found is None:
            raise DeviceError(f"browser: EDGEWISE_BROWSER={named} is no program; name one that is")
        return found
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def site() -> dict[str, Path | bytes]:
    """The page and the runtime in JavaScript, by the names that the page asks for."""
    page = {path.name: path for path in (HERE / "page").iterdir() if path.is_file()}
    return {**page, **{f"web/{path.name}": path for path in RUNTIME.glob("*.js")}}
