"""An Android device over adb: `adb:SERIAL`, by the serial that `adb devices` shows.

On the device everything lies in one folder of the session. A process there, whose standard input is held from
here, removes it when the session ends or the cable is out. The kit (Python, numpy, the engines) is in that
folder too, unless EDGEWISE_KEEP_KIT is set: then it stays in KITS for the next session.
"""

import hashlib
import os
import secrets
import select
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from device_bench.devices import Progress, android, browser
from device_bench.devices.browser import BrowserDevice
from device_bench.devices.host import Done, HostDevice, quiet
from device_bench.devices.kit import Kit, kit
from device_bench.devices.local import follow
from runtimes.errors import DeviceError, InputError

SESSIONS = "/data/local/tmp/edgewise-bench"
KITS = "/data/local/tmp/edgewise-kit"
ABI = "arm64-v8a"
SHORT, LONG = 60.0, 1800.0  # seconds: a word with the device, a large file over a slow radio link

# Over a network nothing tells adb that a phone is out of reach. So the phone sends a line every BEAT seconds,
# and when none came for LOST seconds, adb is told to let go.
BEAT, LOST = 10, 60.0
AT_ONCE = 32  # files that one script proves: a command has a longest length

# The folder's name begins with the process that keeps it; its random part stands in that process's arguments.
KEEP = """
umask 077
work={sessions}/$$-{nonce}
mkdir -p "$work" || exit 1
trap 'rm -rf "$work"; rmdir {sessions} 2> /dev/null' EXIT
trap 'exit 0' HUP INT PIPE TERM
echo "$work"
while :; do
    read -t {beat} line
    test $? -gt 128 || break
    echo
done
"""
SWEEP = """
cd {sessions} 2> /dev/null || exit 0
for folder in *; do
    grep -q -e "${{folder#*-}}" "/proc/${{folder%%-*}}/cmdline" 2> /dev/null || rm -rf "./$folder"
done
rmdir {sessions} 2> /dev/null
"""
# Renamed into place when it is whole. Another session may have kept the same one in the meantime.
UNPACK = """
umask 077
cd {work} && mkdir unpacked && tar xzf kit.tar.gz -C unpacked && rm kit.tar.gz || exit 1
mkdir -p {folder} && rmdir {folder} && mv unpacked {folder} || test -x {folder}/python
"""
STATES = {
    "unauthorized": "it does not trust this computer yet; unlock it and allow USB debugging",
    "offline": "it is offline; unlock it, or plug it in again (over Wi-Fi: adb disconnect, adb connect)",
    "no": "this user may not open it; install Android's udev rules, or try as a member of plugdev",
}


def open(address: str) -> HostDevice:
    """The device, its work folder made and the kit on it. Raises DeviceError, InputError, EngineError."""
    serial = named(address)
    check_state(serial)
    channel = AdbChannel(serial)
    try:
        channel.install(kit(_say))
    except BaseException:
        channel.close()
        raise
    return Phone(channel)


def named(address: str) -> str:
    """The serial of an address. Raises InputError where there is none."""
    serial = address.partition(":")[2]
    if not serial:
        raise InputError(f"device {address!r}: say which, as adb:SERIAL; adb shows {_shown(devices())}")
    return serial


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def adb(arguments: Sequence[str], timeout: float = SHORT) -> Done:
    """One call of the client on this machine. Raises DeviceError where there is none, or it hangs."""
    try:
        done = subprocess.run(["adb", *arguments], capture_output=True, stdin=subprocess.DEVNULL,
                              timeout=timeout, check=False)  # fmt: skip
    except FileNotFoundError:
        raise DeviceError(
            "adb is not on this machine; apt-get install adb, or put Android's platform-tools on PATH"
        ) from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"adb {arguments[-1][:80]}: no answer within {timeout:g} s") from None
    return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def devices() -> dict[str, str]:
    """Serial → state, as `adb devices` shows them. Raises DeviceError where adb's server does not start."""
    done = adb(["devices"])
    if done.code:
        raise DeviceError(f"adb devices: {_last(done)}")
    lines = done.stdout.decode(errors="replace").splitlines()
    return {one[0]: one[1].split()[0] for line in lines if len(one := line.split("\t")) == 2 and one[1]}


def check_state(serial: str) -> None:
    """Raises DeviceError unless the device is there and lets us in."""
    known = devices()
    if serial not in known:
        hint = f"adb connect {serial}" if ":" in serial else "plug it in with USB debugging allowed"
        raise DeviceError(f"adb:{serial}: adb knows no such device, it shows {_shown(known)}; {hint}")
    state = known[serial]
    if state != "device":
        why = STATES.get(state, f"its state is {state}; start Android on it and wait for the lock screen")
        raise DeviceError(f"adb:{serial}: {why}")


def _shown(known: Mapping[str, str]) -> str:
    return ", ".join(f"{serial} ({state})" for serial, state in known.items()) or "none"


class AdbChannel:
    """Commands through `adb shell`, files through `adb push`, each file proved by its sha256 there."""

    def __init__(self, serial: str) -> None:
        self.name = f"adb:{serial}"
        self._client = ["-s", serial]
        self._serial = serial
        self.python: Sequence[str] = ()
        features = adb([*self._client, "features"])
        if features.code:
            raise self._failed("it does not answer", features.stderr)
        if b"shell_v2" not in features.stdout.split():
            raise DeviceError(f"{self.name}: its adbd gives no exit codes; Android 7 or newer is needed")
        self.props = android.props(self.shell("getprop").stdout.decode(errors="replace"))
        if android.abi(self.props) != ABI:
            raise DeviceError(f"{self.name}: its ABI is {android.abi(self.props) or 'not told'}; {ABI} only")
        self.shell(SWEEP.format(sessions=SESSIONS))
        self._keeper = self._keep()
        threading.Thread(target=self._watch, daemon=True).start()

    def _keep(self) -> "subprocess.Popen[bytes]":
        """The process there that makes the work folder and holds it as long as its standard input is open."""
        script = KEEP.format(sessions=SESSIONS, nonce=secrets.token_hex(8), beat=BEAT)
        keeper = subprocess.Popen(
            ["adb", *self._client, "shell", "-T", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        assert keeper.stdout is not None
        self.work = keeper.stdout.readline().decode().strip()
        if not self.work.startswith(SESSIONS):
            said = keeper.communicate()[1].decode(errors="replace")
            raise self._failed("no work folder was made", said)
        return keeper

    def _watch(self) -> None:
        assert self._keeper.stdout is not None
        heard = self._keeper.stdout
        while select.select([heard], [], [], LOST)[0]:
            if not heard.read(100):
                return
        with suppress(DeviceError):  # every command that waits for it ends then; one on a cable stays
            adb(["disconnect", self._serial])

    def shell(self, script: str, timeout: float = SHORT, progress: Progress = quiet) -> Done:
        """A script for the device's own shell. Raises DeviceError where the device goes away."""
        mark = secrets.token_hex(8)
        script = f"(\n{script}\n)\necho {mark}$?"
        done = follow(["adb", *self._client, "shell", "-T", script], timeout, progress, self.name)
        out, found, code = done.stdout.rpartition(mark.encode())
        if not found:  # the client itself ends with 0 or 1, with or without a word, when the cable is out
            raise self._gone(done.stderr)
        return Done(int(code), out, done.stderr)

    def exec(self, command: Sequence[str], timeout: float, progress: Progress) -> Done:
        return self.shell(shlex.join(command), timeout, progress)

    def put(self, data: Path | bytes, name: str) -> None:
        self.put_all({name: data})

    def put_all(self, files: Mapping[str, Path | bytes]) -> None:
        """Beside their places, and there once they are whole: what a broken push left counts for nothing."""
        proofs = [self._sent(data, name) for name, data in files.items()]
        for start in range(0, len(proofs), AT_ONCE):
            proved = self.shell("\n".join(proofs[start : start + AT_ONCE]), LONG)
            if proved.code:
                raise self._failed("a file arrived altered, run again", proved.stderr)

    def _sent(self, data: Path | bytes, name: str) -> str:
        """Pushes one file. Gives the script that proves it there and moves it into place."""
        if isinstance(data, bytes):
            with tempfile.TemporaryDirectory(prefix="edgewise-push-") as folder:
                Path(folder, "file").write_bytes(data)
                return self._sent(Path(folder, "file"), name)
        target, part = (shlex.quote(f"{self.work}/{end}") for end in (name, f"{name}.part"))
        done = adb([*self._client, "push", str(data.resolve()), f"{self.work}/{name}.part"], LONG)
        if done.code:
            said = done.stderr or done.stdout.decode(errors="replace")
            with suppress(DeviceError):
                self.shell(f"rm -f {part}")
            raise self._failed(f"{name} was not written", said)
        with data.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return (
            f'sum=$(sha256sum < {part}) && test "${{sum%% *}}" = {digest} && mv -f {part} {target} || '
            f"{{ echo {shlex.quote(name)} >&2; exit 1; }}"
        )

    def get(self, name: str) -> bytes:
        done = self.shell(f"cat {shlex.quote(f'{self.work}/{name}')}", LONG)
        if done.code:
            raise self._failed(f"{name} was not read", done.stderr)
        return done.stdout

    def install(self, made: Kit) -> None:
        """The kit, as `python`: one that was kept on the device, else pushed and unpacked."""
        kept = f"{KITS}/{made.digest}"
        keep = bool(os.environ.get("EDGEWISE_KEEP_KIT"))
        if self.shell(f"test -x {kept}/python").code == 0:
            folder = kept
        else:
            folder = kept if keep else f"{self.work}/kit"
            self._unpack(made, folder)
        if folder == kept:
            again = f"adb -s {shlex.quote(self._serial)} shell rm -rf {KITS}"
            _say(f"{self.name}: its kit stays there for the next run ({made.unpacked / 1e6:.0f} MB); "
                 f"to remove it: {again}")  # fmt: skip
        started = ["env", "EDGEWISE_EMULATED=1"] if android.emulator(self.props) else []
        self.python = [*started, f"{folder}/python"]

    def _unpack(self, made: Kit, folder: str) -> None:
        size = made.path.stat().st_size
        _say(f"{self.name}: pushing the kit, {size / 1e6:.0f} MB")
        need = f"the kit takes {(size + made.unpacked) / 1e6:.0f} MB in /data/local/tmp"
        try:
            self.put(made.path, "kit.tar.gz")
            unpacked = self.shell(UNPACK.format(work=self.work, folder=folder), LONG)
        except DeviceError as error:
            raise DeviceError(f"{error} ({need})") if "full" in str(error) else error from None
        if unpacked.code:
            raise self._failed(f"{need} and was not unpacked", unpacked.stderr)

    def close(self) -> None:
        """Ends the process that keeps the folder, which removes it; it does so too when nobody asks."""
        assert self._keeper.stdin is not None
        with suppress(subprocess.TimeoutExpired, OSError):
            self._keeper.stdin.close()
            self._keeper.wait(SHORT)
        self._keeper.kill()
        self._keeper.wait()

    def _failed(self, what: str, said: str) -> DeviceError:
        if "No space left" in said:
            return DeviceError(f"{self.name}: {what}: its disk is full; free some space there and run again")
        if any(word in said for word in ("not found", "offline", "closed", "no devices")):
            with suppress(DeviceError):
                if devices().get(self._serial) == "device":
                    return DeviceError(f"{self.name}: {what}: {_last_line(said)}")
            return self._gone(said)
        return DeviceError(f"{self.name}: {what}: {_last_line(said)}")

    def _gone(self, said: str) -> DeviceError:
        why = f" ({_last_line(said)})" if said.strip() else ""
        again = f"adb connect {self._serial}" if ":" in self._serial else "plug it in again"
        return DeviceError(f"{self.name}: the device went away{why}; {again} and run once more")


def _last(done: Done) -> str:
    return _last_line(done.stderr or done.stdout.decode(errors="replace"))


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1].removeprefix("adb: ")[:300]


class Phone(HostDevice):
    """A host whose device block Android completes: the runner there sees no more than the kernel."""

    def __init__(self, channel: AdbChannel) -> None:
        super().__init__(channel)
        self._phone = channel

    def push(self, files: Mapping[str, Path | bytes]) -> None:
        self._phone.put_all(files)

    def run(
        self, request: dict[str, Any], progress: Progress = quiet, timeout: float = 24 * 3600.0
    ) -> dict[str, Any]:
        before = self._dumps()
        answer = super().run(request, progress, timeout)
        for told in [answer, *answer.get("rows", ())]:
            if "device" in told:
                told["device"] = android.block(told["device"], self._phone.props, *before)
        return answer

    def _dumps(self) -> tuple[dict[str, Any], dict[str, Any]]:
        heat, charge = (
            self._phone.shell(f"dumpsys {service}").stdout.decode(errors="replace")
            for service in ("thermalservice", "battery")
        )
        return android.thermal(heat), android.battery(charge)


def open_browser(address: str) -> BrowserDevice:
    """The phone's own browser: the bench page of this machine, handed on through `adb reverse`.

    Raises DeviceError, InputError as `open` does.
    """
    serial = named(address)
    check_state(serial)

    def show(url: str) -> Callable[[], None]:
        with ExitStack() as stack:
            stack.enter_context(reverse(serial, urlsplit(url).port or 80))
            open_url(serial, url)
            return stack.pop_all().close

    return browser.open(address, opener=show)


@contextmanager
def reverse(serial: str, port: int) -> Iterator[None]:
    """The device's own 127.0.0.1:port is this machine's, within the block. Raises DeviceError."""
    where = f"tcp:{port}"
    done = adb(["-s", serial, "reverse", where, where])
    if done.code:
        raise DeviceError(f"adb:{serial}: port {port} was not handed on: {_last(done)}")
    try:
        yield
    finally:
        with suppress(DeviceError):
            adb(["-s", serial, "reverse", "--remove", where])


def open_url(serial: str, url: str) -> None:
    """A page in the device's default browser. Raises DeviceError where no app there opens it."""
    script = f"am start -a android.intent.action.VIEW -d {shlex.quote(url)}"
    done = adb(["-s", serial, "shell", script])
    said = done.stdout.decode(errors="replace") + done.stderr
    if done.code or "Error" in said:
        raise DeviceError(f"adb:{serial}: no browser opened {url}: {_last_line(said)}")
