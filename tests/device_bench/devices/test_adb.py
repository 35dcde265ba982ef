"""The adb back end against real adbd processes: arm64 under qemu, so parity and errors, never times."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsers import need_browser, need_packages

from device_bench.devices import adb, browser, reach
from device_bench.devices.adb import KITS, SESSIONS, AdbChannel
from device_bench.devices.host import quiet
from device_bench.devices.kit import Kit
from runtimes.bundle import open_bundle, seal
from runtimes.errors import DeviceError, InputError

ROOT = Path(__file__).parents[3]
HOSTILE = ["a b", 'it\'s "q" `touch pwned`', "$(touch pwned)", "-rf", "x;touch pwned\nb", "ü/é*?", "~"]
pytestmark = pytest.mark.device


@pytest.fixture
def client(phones, monkeypatch):
    """The adb that reaches the phones is first on PATH."""
    monkeypatch.setenv("PATH", phones.env["PATH"])
    return phones


def command(phones, *arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "apps.cli", *map(str, arguments)], cwd=ROOT, text=True,
        env={**phones.env, "OMP_NUM_THREADS": "1", **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    """Exit code, standard output, and the one line of the error (what was said on the way is not one)."""
    out, said = process.communicate(timeout=300)
    errors = [line for line in said.splitlines() if line.startswith("edgewise: ")]
    assert "Traceback" not in said, said
    assert len(errors) == bool(process.returncode), said
    return process.returncode, out, "".join(errors)


def nothing_left(phones, number):
    """No folder of a session, no process of the kit. A folder goes some time after a cable did."""
    phones.wait(lambda: "No such file" in phones.adb(number, "shell", f"ls {SESSIONS}/*"))
    phones.wait(
        lambda: (
            "edgewise" not in phones.adb(number, "shell", "cat /proc/[0-9]*/cmdline 2>&1 | grep -a runner")
        )
    )


def test_check_pushes_the_kit_runs_both_engines_and_leaves_nothing(client, tiny_bundle):
    code, out, error = ended(
        command(client, "check", tiny_bundle, "--on", f"adb:{client.serials[0]}", "--json")
    )
    assert code == 0, error
    (checked,) = json.loads(out).values()
    assert set(checked["variants"]) == set(open_bundle(tiny_bundle).variants)
    for name, result in checked["variants"].items():
        assert result["golden"]["agreement"] == 1 and result["golden"]["max_abs"] < 0.1, name
    assert client.adb(0, "shell", "ls -A /data/local/tmp") == ""


def test_two_phones_at_once_give_rows_without_times(client, other_kept_kit, tiny_bundle, tmp_path):
    out = tmp_path / "rows.jsonl"
    on = [word for serial in client.serials for word in ("--on", f"adb:{serial}")]
    code, table, error = ended(
        command(client, "bench", tiny_bundle, "--variant", "onnx-int8", "--quick", "--out", out, *on)
    )
    assert code == 0, error
    assert table.count("not told") == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["emulated"] is True
        assert row["latency_ms"] is row["cold_start_ms"] is row["peak_rss_mb"] is None
        assert row["parity"]["agreement"] == 1
        device = row["device"]
        assert device["name"] in ("Stand-in Phone", "Stand-in Phone (2)") and device["os"].startswith(
            "Android 14 (API 34), Linux"
        )
        assert (device["soc"], device["governor"], device["throttled"]) == ("qemu-user", "schedutil", "light")
        assert device["temperature_c"] == 41.5 and device["battery"]["plugged"] is True
    assert ["dotprod" in row["device"]["isa"] for row in rows] == [True, True, False, False]
    for number in (0, 1):
        nothing_left(client, number)
        assert "python" in client.adb(number, "shell", f"ls {KITS}/*"), "what was kept stays"


@pytest.mark.parametrize("what", ["cable", "host"])
def test_who_goes_in_the_middle_leaves_nothing(client, kept_kit, tiny_bundle, what):
    process = command(client, "check", tiny_bundle, "--on", f"adb:{client.serials[1]}")
    assert process.stderr is not None
    while "answers: " not in (line := process.stderr.readline()):
        assert line, "the run ended before the first answer"
    assert client.adb(1, "shell", f"ls {SESSIONS}").strip()
    if what == "host":
        process.send_signal(signal.SIGKILL)
        process.communicate()
    else:
        client.kill(1)
        code, _, error = ended(process)
        assert code == 5 and "went away" in error and client.serials[1] in error
        client.start(1)
    nothing_left(client, 1)


def test_a_phone_that_is_silent_is_let_go(client, monkeypatch):
    monkeypatch.setattr(adb, "BEAT", 1)
    monkeypatch.setattr(adb, "LOST", 4.0)
    channel = AdbChannel(client.serials[0])
    try:
        assert channel.exec(["sleep", "6"], 60, quiet).code == 0, "it is heard while it works"
        client.inside("ip", "link", "set", "usb1", "down")
        with pytest.raises(DeviceError, match=rf"went away[^\n]*; adb connect {client.serials[0]} and run"):
            channel.exec(["sleep", "300"], 300, quiet)
    finally:
        channel.close()
        client.inside("ip", "link", "set", "usb1", "up")
        client.connect(0)
    nothing_left(client, 0)


@pytest.fixture
def small_disk(client):
    """The first phone with 30 MB left: less than the kit takes."""
    place = f"{client.root(0)}/data/local/tmp"
    client.inside("mount", "-t", "tmpfs", "-o", "size=30m", "none", place)
    yield client
    client.inside("umount", "-l", place)


def test_a_full_disk(small_disk, tiny_bundle):
    code, _, error = ended(command(small_disk, "check", tiny_bundle, "--on", f"adb:{small_disk.serials[0]}"))
    assert code == 5 and "disk is full" in error and "MB" in error
    assert small_disk.adb(0, "shell", "ls -A /data/local/tmp") == ""


def test_a_missing_engine(client, kept_kit, tiny_bundle, tmp_path):
    bundle = tmp_path / "other.bundle"
    shutil.copytree(tiny_bundle, bundle)
    manifest = open_bundle(bundle).manifest
    manifest["variants"]["onnx-int8"]["engine"] = "executorch"
    seal(bundle, manifest, manifest["files"])
    code, _, error = ended(
        command(client, "bench", bundle, "--variant", "onnx-int8", "--on", f"adb:{client.serials[1]}")
    )
    assert code == 2 and "no engine 'executorch' for onnx-int8" in error
    nothing_left(client, 1)


def test_a_serial_that_adb_does_not_know(client):
    with pytest.raises(DeviceError, match=rf"^adb:nobody: [^\n]*{client.serials[0]} \(device\)[^\n]*$"):
        adb.open("adb:nobody")
    with pytest.raises(DeviceError, match="adb connect 10.9.9.9:5555$"):
        adb.open("adb:10.9.9.9:5555")
    with pytest.raises(InputError, match=f"adb:SERIAL.*{client.serials[1]}"):
        adb.open("adb:")


def test_an_offline_phone(client):
    client.kill(1)
    try:
        client.wait(lambda: adb.devices().get(client.serials[1]) in ("offline", None))
        with pytest.raises(DeviceError, match=r"^adb:[^\n]*(offline|knows no such device)[^\n]*$"):
            adb.open(f"adb:{client.serials[1]}")
    finally:
        client.start(1)


@pytest.mark.parametrize(
    ("state", "expected"),
    [("unauthorized", "allow USB debugging"), ("no permissions (user in plugdev); see [a page]", "udev"),
     ("recovery", "its state is recovery")],
)  # fmt: skip
def test_states_that_the_stand_in_cannot_have(tmp_path, monkeypatch, state, expected):
    """Here adb is a stub: Debian's adbd asks nobody for leave."""
    listing = f"List of devices attached\nX1\t{state}\n\n"
    (tmp_path / "listing").write_text(listing)
    (tmp_path / "adb").write_text(f"#!/bin/sh\ncat {tmp_path}/listing\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DeviceError, match=rf"^adb:X1: [^\n]*{expected}[^\n]*$"):
        adb.open("adb:X1")


def test_without_adb_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"^adb is not on this machine; [^\n]*$"):
        adb.open("adb:X1")


def test_another_processor_is_named(client):
    props = f"{client.root(0)}/system/build.prop"
    client.inside("sed", "-i.kept", "s/^ro.product.cpu.abi=.*/ro.product.cpu.abi=x86_64/", props)
    try:
        with pytest.raises(DeviceError, match="its ABI is x86_64; arm64-v8a only"):
            AdbChannel(client.serials[0])
    finally:
        client.inside("mv", f"{props}.kept", props)


@pytest.fixture
def channel(client):
    opened = AdbChannel(client.serials[0])
    yield opened
    opened.close()


def test_codes_streams_and_bytes(channel):
    heard = []
    done = channel.exec(["sh", "-c", "printf 'a\\000\\r\\n\\377'; echo oh >&2; exit 41"], 60, heard.append)
    assert (done.code, done.stdout, done.stderr, heard) == (41, b"a\0\r\n\xff", "oh", ["oh"])
    assert channel.exec(["cat", "nothing-here"], 60, quiet).code == 1
    with pytest.raises(DeviceError, match="no answer within 0.2 s"):
        channel.exec(["sleep", "5"], 0.2, quiet)


def test_hostile_names_are_names(client, channel):
    files = {f"bundle/{name}": os.urandom(1000) for name in HOSTILE}
    adb.Phone(channel).push(files)
    for name, content in files.items():
        assert channel.get(name) == content
    done = channel.exec(["printf", "<%s>", *HOSTILE], 60, quiet)
    assert done.stdout.decode() == "".join(f"<{name}>" for name in HOSTILE)
    assert client.inside("find", f"{client.root(0)}.upper", "-name", "pwned") == ""
    with pytest.raises(DeviceError, match="not-there was not read"):
        channel.get("not-there")


def test_a_push_that_broke_off_counts_for_nothing(client, channel, tmp_path):
    channel.shell(f"head -c 5000 /dev/urandom > {channel.work}/model.part")
    with pytest.raises(DeviceError):
        channel.get("model")
    (tmp_path / "model").write_bytes(b"whole" * 100)
    channel.put(tmp_path / "model", "model")
    assert channel.get("model") == b"whole" * 100
    assert "part" not in client.adb(0, "shell", f"ls {channel.work}")


def test_a_file_that_arrives_altered_is_named_and_not_taken(channel, monkeypatch):
    monkeypatch.setattr(adb.hashlib, "file_digest", lambda stream, name: hashlib.sha256(b"another file"))
    with pytest.raises(DeviceError, match="altered.*it's a file"):
        channel.put(b"a file", "it's a file")
    with pytest.raises(DeviceError, match="was not read"):
        channel.get("it's a file")


def test_stale_sessions_go_and_live_ones_stay(client, channel):
    channel.put(b"mine", "file")
    # Of a process that is no more, and of one that has nothing to do with it.
    channel.shell(f"mkdir -p {SESSIONS}/999999-aa/kit {SESSIONS}/1-bb '{SESSIONS}/odd name' {SESSIONS}/-cc")
    other = AdbChannel(client.serials[0])
    names = client.adb(0, "shell", f"ls {SESSIONS}").split()
    assert sorted(names) == sorted(path.rpartition("/")[2] for path in (channel.work, other.work))
    other.close()
    assert channel.get("file") == b"mine"
    channel.close()
    assert SESSIONS.rpartition("/")[2] not in client.adb(0, "shell", "ls /data/local/tmp")


@pytest.fixture
def small_kit(tmp_path):
    """A kit whose Python says what it was asked."""
    (tmp_path / "python").write_text('#!/system/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    with tarfile.open(tmp_path / "kit.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "python", "python")
    return Kit(tmp_path / "kit.tar.gz", "ab" * 32, 33)


def test_a_kit_goes_with_its_session_unless_it_is_kept(client, small_kit, monkeypatch, capfd):
    folders = []
    for keep in ("", "1", ""):
        monkeypatch.setenv("EDGEWISE_KEEP_KIT", keep)
        channel = AdbChannel(client.serials[0])
        channel.install(small_kit)
        assert channel.exec([*channel.python, "-c", "a b"], 60, quiet).stdout == b"-c a b\n"
        folders.append(channel.python[0].removesuffix("/python"))
        channel.close()
    assert folders[0].startswith(SESSIONS) and folders[1] == folders[2] == f"{KITS}/{small_kit.digest}"
    said = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[1].split(",")[0][:15] for line in said] == [
        "pushing the kit", "pushing the kit", "its kit stays t", "its kit stays t",
    ]  # fmt: skip
    remove = said[-1].partition("to remove it: ")[2]
    assert client.adb(0, "shell", "ls -A /data/local/tmp") == "edgewise-kit\n"
    subprocess.run(remove, shell=True, check=True)
    assert client.adb(0, "shell", "ls -A /data/local/tmp") == ""


def test_on_androids_own_emulator_rows_say_so(channel, small_kit):
    channel.props["ro.kernel.qemu"] = "1"
    (small_kit.path.parent / "python").write_text("#!/system/bin/sh\necho $EDGEWISE_EMULATED\n")
    with tarfile.open(small_kit.path, "w:gz") as archive:
        archive.add(small_kit.path.parent / "python", "python")
    channel.install(small_kit)
    assert channel.exec(channel.python, 60, quiet).stdout == b"1\n"


SERVER = """
import functools, http.server, sys
http.server.SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.HTTPServer(("127.0.0.1", 8765), serve)
print("up", flush=True)
server.handle_request()
"""


def test_the_phone_reaches_a_port_of_this_machine(client, tmp_path):
    (tmp_path / "page").write_text("a page")
    server = client.begin(sys.executable, "-c", SERVER, str(tmp_path))
    assert server.stdout.readline() == "up\n"
    with adb.reverse(client.serials[0], 8765):
        assert "a page" in client.adb(0, "shell", "wget -O - http://127.0.0.1:8765/page")
    server.communicate()
    assert client.adb(0, "reverse", "--list").strip() == ""
    with pytest.raises(DeviceError, match="port 8765 was not handed on"), adb.reverse("nobody", 8765):
        pass


def test_a_page_opens_by_its_whole_address(client):
    """`am` is a stub there that writes down what it was given."""
    url = "http://127.0.0.1:8765/?a=1&b=it's $(x)#end"
    adb.open_url(client.serials[0], url)
    asked = client.adb(0, "shell", "cat /data/local/am-was-called")
    assert asked == f"start -a android.intent.action.VIEW -d {url}\n"
    with pytest.raises(DeviceError, match="no browser opened"):
        adb.open_url("nobody", url)


@pytest.mark.browser
def test_the_phones_browser_gets_the_bench_page(client):
    """`am` is a stub, so a browser of this machine opens what the phone's was told to open."""
    need_browser()
    need_packages()
    device = adb.open_browser(f"adb:{client.serials[0]}")
    try:
        url = client.adb(0, "shell", "cat /data/local/am-was-called").split(" -d ")[1].strip()
        assert f"tcp:{urlsplit(url).port}" in client.adb(0, "reverse", "--list")
        started = browser.Started(browser.find(), url)
        try:
            assert "Chrom" in device.describe()["device"]["name"]
        finally:
            started.close()
    finally:
        device.close()
    assert client.adb(0, "reverse", "--list").strip() == ""
    with pytest.raises(InputError, match="--browser is for phones"), reach("local", browser=True):
        pass
