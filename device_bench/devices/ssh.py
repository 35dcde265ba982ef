"""A host over SSH (a Raspberry Pi) through the system's own `ssh`: its config, keys, agent and known hosts.

One connection carries everything. `keeper.py` runs at its far end and keeps the session's folder; commands
are sessions of their own on the same connection. Nothing is asked and no host key is accepted in silence.
"""

import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from device_bench.devices import Progress
from device_bench.devices.host import Done, HostDevice
from device_bench.devices.keeper import BLOCK, MARK
from device_bench.devices.local import follow
from runtimes.bundle import is_safe_name
from runtimes.errors import DeviceError, EngineError, InputError

# First come, first kept: these stand before whatever the user's config says.
OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ConnectTimeout=15",
    "ConnectionAttempts=1", "ServerAliveInterval=10", "ServerAliveCountMax=3", "LogLevel=ERROR",
    "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no",
    "RemoteCommand=none", "ControlPersist=no",
)  # fmt: skip
START = "edgewise-start"
BEAT, PATIENCE = 20.0, 90.0
MAX_ANSWER = 256 << 20
KEEPER = Path(__file__).with_name("keeper.py")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\$?")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True)
class Address:
    """Where to, as ssh takes it: what is None comes from the user's config."""

    host: str
    user: str | None = None
    port: int | None = None

    def arguments(self) -> list[str]:
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]

    def words(self) -> str:
        """The same, as a user types it behind ssh or ssh-copy-id."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"

    def known_as(self) -> str:
        """How known_hosts names it."""
        return f"[{self.host}]:{self.port}" if self.port not in (None, 22) else self.host


def parse(address: str) -> Address:
    """`[USER@]HOST[:PORT]`, IPv6 in brackets. Raises InputError for anything else."""
    user, at, place = address.rpartition("@")
    host, colon, port = place.partition(":")
    right = _HOST
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        colon, port, right = rest[:1], rest[1:], _IPV6
        if not bracket or colon not in ("", ":"):
            right = re.compile("(?!)")
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    fits = right.fullmatch(host) and (not at or _USER.fullmatch(user))
    if not fits or (colon and not 1 <= number <= 65535):
        raise InputError(f"device {address!r}: name a host as USER@HOST, USER@HOST:PORT or USER@[IPV6]:PORT")
    return Address(host, user if at else None, number or None)


class SSHChannel:
    """A connection, a keeper at its far end, and a folder there."""

    python: Sequence[str] = ("python3",)

    def __init__(self, address: str) -> None:
        self.name = address
        self._to = parse(address)
        if shutil.which("ssh") is None:
            raise DeviceError(f"{address}: there is no ssh on this machine; install the OpenSSH client")
        # A socket's path has some 100 characters at most, which a long TMPDIR would use up.
        short = tempfile.gettempdir() if len(tempfile.gettempdir()) < 50 else "/tmp"
        self._folder = Path(tempfile.mkdtemp(prefix="edgewise-ssh-", dir=short))
        self._socket = str(self._folder / "s").replace("%", "%%")
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []
        self._cut = False
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        """The connection itself: a session that lives as long as its standard input."""
        self._main = self._start("main", "-o", "ControlMaster=yes", line=f"echo {START} && exec cat")
        if _read_until(self._main, START) is None:
            raise self._refused()
        source = KEEPER.read_text(encoding="utf-8")
        line = "exec " + shlex.join([*self.python, "-I", "-c", source, "serve", str(PATIENCE)])
        self._keeper = self._start("keeper", *self._shared(), line=line)
        told = _read_until(self._keeper, MARK)
        if told is None:
            raise self._no_keeper()
        about = json.loads(told)
        if "error" in about:
            raise DeviceError(f"{self.name}: no work folder there: {about['error']}")
        self.work = str(about["work"])
        threading.Thread(target=self._beat, daemon=True).start()

    def _shared(self) -> list[str]:
        # Where the connection is gone, ssh would make a new one: to `false`, which is none.
        return ["-o", "ControlMaster=no", "-o", "ProxyCommand=false"]

    def _command(self, *options: str, line: str) -> list[str]:
        fixed = [word for option in OPTIONS for word in ("-o", option)]
        return ["ssh", "-T", *fixed, "-S", self._socket, *options, *self._to.arguments(), line]

    def _start(self, name: str, *options: str, line: str) -> "subprocess.Popen[bytes]":
        with (self._folder / name).open("wb") as errors:
            child = subprocess.Popen(
                self._command(*options, line=line),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self._children.append(child)
        return child

    def _words_of(self, name: str) -> str:
        return (self._folder / name).read_text(errors="replace").strip()

    def _refused(self) -> DeviceError:
        self._main.wait()
        return DeviceError(f"{self.name}: {_reason(self._words_of('main'), self._to)}")

    def _no_keeper(self) -> EngineError | DeviceError:
        code = self._keeper.wait()
        if code == 255 and self._is_gone():
            return self._lost()
        if code == 127:
            return EngineError(f"{self.name}: no python3 there; install Python 3.11 or newer on it")
        last = (self._words_of("keeper").splitlines() or [f"exit code {code}"])[-1]
        return EngineError(f"{self.name}: python3 there does not start: {last[:300]}; it takes 3.11 or newer")

    def _is_gone(self) -> bool:
        """Whether the connection ended, which may take a moment to show."""
        with suppress(subprocess.TimeoutExpired):
            self._main.wait(3)
        return self._main.poll() is not None

    def _lost(self) -> DeviceError:
        words = self._words_of("main").splitlines()
        why = f" ({words[-1].strip()[:200]})" if words else ""
        return DeviceError(
            f"{self.name}: the connection was lost{why}; what ran there ends and is removed by itself, "
            "try again when it is back"
        )

    def _beat(self) -> None:
        """A sign of life while nothing else is said: a pulled cable is noticed on the other side, too."""
        while not self._done.wait(BEAT):
            with self._lock, suppress(OSError):
                _send(self._keeper, b"\n")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Remembers that a conversation was cut in the middle on this side (Ctrl-C)."""
        try:
            yield
        except (DeviceError, EngineError):
            raise
        except BaseException:
            self._cut = True
            raise

    def exec(self, command: Sequence[str], timeout: float, progress: Progress) -> Done:
        line = f"echo {START} && exec {shlex.join(command)}"
        with self._whole():
            there = self._command(*self._shared(), line=line)
            done = follow(there, timeout, lambda words: progress(_plain(words)), self.name)
            if done.code == 255 and self._is_gone():
                raise self._lost()
        return Done(done.code, done.stdout.partition(f"{START}\n".encode())[2], done.stderr)

    def put(self, data: Path | bytes, name: str) -> None:
        if not is_safe_name(name):
            raise InputError(f"{self.name}: file name {name!r} is not allowed; pack the bundle again")
        with self._lock, self._whole(), _opened(data) as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
            request = {"do": "put", "name": name, "sha256": sha256, "size": stream.seek(0, 2)}
            answer = self._push(request, stream)
            if "again" in answer:  # the part that lay there was not the beginning of this file
                answer = self._push(request, stream)
        if "done" not in answer:
            words = answer.get("error", "it arrived altered, twice")
            raise DeviceError(f"{self.name}: {name} was not written there: {words}")

    def _push(self, request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
        answer = self._ask(request)
        if "have" not in answer:
            return answer
        left = request["size"] - stream.seek(answer["have"])
        with suppress(BrokenPipeError):  # its last words say why
            while left:
                block = stream.read(min(BLOCK, left))
                if not block:
                    raise InputError(
                        f"{self.name}: {request['name']} was changed while it was pushed; try again"
                    )
                _send(self._keeper, block)
                left -= len(block)
        return self._hear()

    def get(self, name: str) -> bytes:
        with self._lock, self._whole():
            answer = self._ask({"do": "get", "name": name})
            if "size" not in answer:
                raise DeviceError(f"{self.name}: {name}: {answer['error']}")
            assert self._keeper.stdout is not None
            if not 0 <= answer["size"] <= MAX_ANSWER:
                self._cut = True
                raise DeviceError(f"{self.name}: {name} is said to have {answer['size']} bytes; not taken")
            data = self._keeper.stdout.read(answer["size"])
        if len(data) != answer["size"]:
            raise self._lost()
        return data

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            _send(self._keeper, json.dumps(request).encode() + b"\n")
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line.endswith(b"\n"):
            self._is_gone()
            raise self._lost()
        try:
            return dict(json.loads(_plain(line.decode(errors="replace").rstrip("\n"))))
        except (ValueError, TypeError, RecursionError):
            self._cut = True
            raise DeviceError(
                f"{self.name}: it answers what no keeper of ours says; is it the right host?"
            ) from None

    def close(self) -> None:
        """Ends the session. What it left there is removed: at once, or by the other side's own means."""
        if self._done.is_set():
            return
        self._done.set()
        try:
            if self._cut:
                self._clean()
            elif hasattr(self, "work") and self._keeper.poll() is None:
                with suppress(DeviceError):
                    self._ask({"do": "bye"})
        finally:
            for child in reversed(self._children):
                _end(child)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _clean(self) -> None:
        """After Ctrl-C, which may have hit ssh as well: over a connection of its own, leave nothing there."""
        for child in reversed(self._children):
            _end(child)
        if not hasattr(self, "work"):
            return
        source, session = KEEPER.read_text(encoding="utf-8"), self.work.rpartition("/")[2]
        line = "exec " + shlex.join([*self.python, "-I", "-c", source, "clean", session])
        with suppress(subprocess.TimeoutExpired):
            command = self._command("-o", "ControlMaster=no", line=line)
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def _read_until(child: "subprocess.Popen[bytes]", mark: str) -> str | None:
    """The rest of the line that begins with a mark, past what login scripts print; None at the end."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(mark.encode()):
            return line.decode()[len(mark) :]
    return None


def _plain(words: str) -> str:
    """What a device says, without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _send(child: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(data)
    child.stdin.flush()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Close its standard input, which ends it; if not, kill it."""
    with suppress(OSError):
        assert child.stdin is not None
        child.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(2)
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


@contextmanager
def _opened(data: Path | bytes) -> Iterator[IO[bytes]]:
    if isinstance(data, bytes):
        yield io.BytesIO(data)
        return
    try:
        stream = data.open("rb")
    except OSError as error:
        raise InputError(f"{data}: {error.strerror}; copy the bundle again") from None
    with stream:
        yield stream


def _reason(words: str, to: Address) -> str:
    """What ssh said, as one line with what to do."""
    if "HOST IDENTIFICATION HAS CHANGED" in words:
        return (
            "its host key has changed: a new system on it, or another machine in its place; only if you know "
            f"why, `ssh-keygen -R '{to.known_as()}'` and `ssh {to.words()}`"
        )
    if "Host key verification failed" in words or "host key is known" in words:
        return (
            f"its host key is not known here; connect once by `ssh {to.words()}` and accept it if it is what "
            "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the device"
        )
    if "Permission denied" in words or "Too many authentication failures" in words:
        return f"it takes none of your keys; put one there with `ssh-copy-id {to.words()}`"
    last = (words.splitlines() or ["ssh ended without a word"])[-1].strip()
    for sign, advice in _ADVICE.items():
        if sign in last:
            return f"{last}; {advice}"
    return f"not reached: {last[:300]}; try `ssh {to.words()}`"


_ADVICE = {
    "Could not resolve": "check the name, or add a Host to your ssh config",
    "refused": "is sshd on and the port right?",
    "timed out": "is it on, and in this network?",
    "No route to host": "is it on, and in this network?",
    "unreachable": "is it on, and in this network?",
}


def open(address: str) -> HostDevice:
    """The host as a device. Raises InputError for its name, DeviceError, EngineError without Python."""
    return HostDevice(SSHChannel(address))
