"""The keeper as a process on this machine, with a home of its own."""

import hashlib
import json
import resource
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from device_bench.devices.keeper import MARK
from device_bench.devices.ssh import KEEPER


class Session:
    def __init__(self, home, patience="30", limit=None):
        command = [sys.executable, "-I", "-c", KEEPER.read_text(), "serve", patience]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env={"HOME": str(home)}, **pipes)
        if limit:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        self.hello = json.loads(self.process.stdout.readline().decode().removeprefix(MARK))

    def ask(self, **request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.hear()

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def put(self, name, data, claimed=None):
        sha256 = claimed or hashlib.sha256(data).hexdigest()
        told = self.ask(do="put", name=name, sha256=sha256, size=len(data))
        if "have" not in told:
            return told
        with suppress(BrokenPipeError):  # its last words say why
            self.send(data[told["have"] :])
        return self.hear()

    def drop(self):
        """The link ends without a word."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def files(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_a_session_that_ends_well_leaves_nothing(tmp_path):
    session = Session(tmp_path)
    assert session.put("bundle/a.bin", b"abc") == {"done": True}
    assert files(tmp_path) == ["a.bin"]
    assert session.ask(do="get", name="bundle/a.bin") == {"size": 3}
    assert session.process.stdout.read(3) == b"abc"
    assert session.ask(do="bye") == {"done": True}
    assert list((tmp_path / ".cache").iterdir()) == []


def test_a_broken_push_goes_on_in_the_next_session(tmp_path):
    data = bytes(range(256)) * 4000
    sha256 = hashlib.sha256(data).hexdigest()
    session = Session(tmp_path)
    assert session.ask(do="put", name="a", sha256=sha256, size=len(data)) == {"have": 0}
    session.send(data[:300_000])
    session.drop()
    assert files(tmp_path) == [f"{sha256}.part"]
    again = Session(tmp_path)
    assert again.ask(do="put", name="b", sha256=sha256, size=len(data)) == {"have": 300_000}
    again.send(data[300_000:])
    assert again.hear() == {"done": True}
    assert again.ask(do="bye") == {"done": True}
    assert list((tmp_path / ".cache").iterdir()) == []


def test_a_part_that_is_another_file_is_not_taken(tmp_path):
    session = Session(tmp_path)
    wanted = hashlib.sha256(b"right").hexdigest()
    assert session.put("a", b"wrong", claimed=wanted) == {"again": True}
    assert files(tmp_path) == []
    assert session.put("a", b"right") == {"done": True}
    session.drop()


def test_a_disk_that_fails_in_the_middle_ends_the_session_and_leaves_nothing(tmp_path):
    """A limit on file sizes stands in for the disk here; a full one is in test_ssh.py."""
    session = Session(tmp_path, limit=500_000)
    told = session.put("a", bytes(1_000_000))
    assert told == {"error": "File too large"}
    assert session.process.wait() == 0
    assert files(tmp_path) == []


def test_more_than_fits_is_refused_before_it_is_sent(tmp_path):
    session = Session(tmp_path)
    told = session.ask(do="put", name="a", sha256="0" * 64, size=1 << 60)
    assert told["error"].startswith("No space left on device: ")
    assert session.put("b", b"small") == {"done": True}
    session.drop()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", ".", ""])
def test_no_name_leaves_the_session(tmp_path, name):
    session = Session(tmp_path)
    assert session.put(name, b"x") == {"error": "the name leaves the folder"}
    assert session.ask(do="get", name=name) == {"error": "the name leaves the folder"}
    assert session.put("a", b"x", claimed="../../../x") == {"error": "the name leaves the folder"}
    session.drop()
    assert files(tmp_path) == []


def test_silence_ends_a_session_and_signs_of_life_keep_it(tmp_path):
    session = Session(tmp_path, patience="1")
    for _ in range(8):
        time.sleep(0.25)
        session.send(b"\n")
    assert session.put("a", b"x") == {"done": True}
    assert session.process.wait(30) == 0  # nothing is said any more, and nothing is closed
    assert files(tmp_path) == []


def test_a_live_session_is_kept_and_a_dead_one_is_swept(tmp_path):
    live, dead = Session(tmp_path), Session(tmp_path)
    assert live.put("mine", b"x") == dead.put("theirs", b"y") == {"done": True}
    dead.process.kill()  # it removes nothing itself
    dead.process.wait()
    assert files(tmp_path) == ["mine", "theirs"]
    third = Session(tmp_path)
    assert files(tmp_path) == ["mine"]
    assert third.ask(do="bye") == {"done": True}
    assert files(tmp_path) == ["mine"]
    assert live.ask(do="bye") == {"done": True}
    assert list((tmp_path / ".cache").iterdir()) == []


def test_two_sessions_push_the_same_file_at_once(tmp_path):
    data = bytes(1000)
    one, two = Session(tmp_path), Session(tmp_path)
    sha256 = hashlib.sha256(data).hexdigest()
    assert one.ask(do="put", name="a", sha256=sha256, size=1000) == {"have": 0}
    assert two.put("a", data) == {"done": True}
    one.send(data)
    assert one.hear() == {"done": True}
    assert one.ask(do="bye") == two.ask(do="bye") == {"done": True}
    assert list((tmp_path / ".cache").iterdir()) == []


def test_no_home_to_write_to_is_said(tmp_path):
    (tmp_path / ".cache").write_text("in the way")
    told = Session(tmp_path).hello["error"]
    assert ".cache" in told and "\n" not in told
