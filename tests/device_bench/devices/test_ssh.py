"""The SSH back end against a real arm64 sshd (tests/support/pi.py), mostly through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from cable import Cable
from pi import Pi, free_port, keygen, lacking, need_pi, packages

from device_bench.devices import reach
from device_bench.devices.host import code
from device_bench.devices.ssh import SSHChannel
from device_bench.devices.wheels import VERSIONS
from device_bench.remote import part_of
from runtimes.bundle import open_bundle, seal
from runtimes.errors import DeviceError, InputError
from runtimes.golden import inputs_of
from runtimes.load import load

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """A Pi 4 with nothing on it but Debian's Python."""
    yield from _running(Pi(tmp_path_factory.mktemp("pi") / "bare", "cortex-a72"))


@pytest.fixture(scope="session")
def equipped(tmp_path_factory):
    """A Pi 5 with both engines installed."""
    need_pi()
    pins = {name.replace("-", "_"): pin for name, pin in VERSIONS.items() if name != "tflite-runtime"}
    yield from _running(
        Pi(tmp_path_factory.mktemp("pi") / "equipped", "cortex-a76", packages("arm64", **pins))
    )


def _running(pi):
    need_pi()
    try:
        yield pi.make()
    finally:
        pi.off()


@contextmanager
def connected(pi, folder, monkeypatch, port=None):
    """A device in this process."""
    monkeypatch.setenv("PATH", pi.client(folder)["PATH"])
    with reach(f"pi@127.0.0.1:{port or pi.port}") as device:
        yield device


def edgewise(*words, env):
    command = [sys.executable, "-m", "apps.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)


def failed(done, code, *words):
    """It ended with this code and one line that has these words."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgewise: ")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert done.stderr.splitlines()[-1] == lines[0] and "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def eventually(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def emptied(pi):
    """Nothing lies there, and nothing but sshd runs."""
    eventually(lambda: not pi.left())
    eventually(lambda: len(pi.processes()) == 1)


@contextmanager
def started(*words, env, until):
    """A command line in a process group of its own, once it has said a line that starts so."""
    command = [sys.executable, "-m", "apps.cli", *map(str, words)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, cwd=ROOT, process_group=0, **pipes) as process:
        try:
            assert any(line.startswith(until) for line in process.stderr), "it ended before"
            yield process
        finally:
            process.kill()


def ended(process):
    errors = process.stderr.read()
    return subprocess.CompletedProcess(process.args, process.wait(), "", errors)


@pytest.mark.device
def test_wheels_are_pushed_and_the_gate_passes_on_a_cortex_a72(bare, tiny_bundle, tmp_path):
    done = edgewise("check", tiny_bundle, "--on", bare.address, "--json", env=bare.client(tmp_path))
    assert done.returncode == 0, done.stderr
    variants = json.loads(done.stdout)[bare.address]["variants"]
    assert variants.keys() == set(open_bundle(tiny_bundle).variants)
    assert all(one["golden"]["agreement"] == 1 for one in variants.values())
    assert variants["onnx-fp32"]["golden"]["max_abs"] < 1e-4 > variants["tflite-fp32"]["golden"]["max_abs"]
    emptied(bare)


@pytest.mark.device
def test_rows_of_a_cortex_a76_are_emulated_and_tell_no_times(equipped, tiny_bundle, tmp_path):
    out, env = tmp_path / "rows.jsonl", equipped.client(tmp_path / "client")
    chosen = ["--variant", "onnx-int8", "--variant", "tflite-dynamic_wi8_afp32"]
    done = edgewise("bench", tiny_bundle, "--on", equipped.address, *chosen, "--out", out, env=env)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["engine"] for row in rows} == {"onnxruntime", "ai_edge_litert"} and len(rows) == 4
    for row in rows:
        assert row["emulated"] and row["parity"]["agreement"] == 1
        assert {"dotprod", "fp16"} <= set(row["device"]["isa"])
        assert [row[key] for key in ("latency_ms", "cold_start_ms", "peak_rss_mb")] == [None] * 3
    emptied(equipped)


@pytest.mark.device
def test_a_detectors_windows_are_answered_on_a_cortex_a76(equipped, detector_bundle, tmp_path):
    env = equipped.client(tmp_path / "client")
    done = edgewise("check", detector_bundle, "--on", equipped.address, "--json", env=env)
    assert done.returncode == 0, done.stderr
    variants = json.loads(done.stdout)[equipped.address]["variants"]
    assert variants.keys() == set(open_bundle(detector_bundle).variants)
    assert variants["onnx-fp32"]["golden"]["max_abs"] < 1e-4
    assert variants["tflite-full_int8"]["golden"]["cosine"] > 0.99
    out = tmp_path / "rows.jsonl"
    words = ["bench", detector_bundle, "--on", equipped.address, "--variant", "onnx-int8", "--out", out]
    done = edgewise(*words, env=env)
    assert done.returncode == 0, done.stderr
    row = json.loads(out.read_text().splitlines()[0])
    assert row["emulated"] and row["sample"]["unit"] == "points" and row["parity"]["agreement"] > 0.8
    emptied(equipped)


@pytest.mark.device
def test_a_generator_writes_on_a_cortex_a76_what_it_writes_here(equipped, lm_bundles, tmp_path):
    bundle, env = lm_bundles["llama"], equipped.client(tmp_path)
    done = edgewise("check", bundle, "--on", equipped.address, "--json", env=env)
    assert done.returncode == 0, done.stderr
    variants = json.loads(done.stdout)[equipped.address]["variants"]
    assert variants.keys() == {"onnx-fp32", "onnx-int4"}
    prompts = inputs_of(open_bundle(bundle).golden())
    for name, found in variants.items():
        here = load(bundle, variant=name, threads=1).continuations(prompts, 16)
        assert found["golden"]["continuations"] == here and max(map(len, here)) == 16
    assert variants["onnx-fp32"]["golden"]["greedy"] == 1
    emptied(equipped)


@pytest.mark.device
def test_the_gate_passes_on_a_cortex_a76(equipped, tiny_bundle, tmp_path):
    done = edgewise("check", tiny_bundle, "--on", equipped.address, env=equipped.client(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "fetching" not in done.stderr and len(done.stdout.splitlines()) == len(
        open_bundle(tiny_bundle).variants
    )
    emptied(equipped)


@pytest.mark.device
def test_an_old_device_keeps_its_tflite_runtime(tiny_bundle, tmp_path):
    need_pi()
    there = packages("arm64", tflite_runtime="2.14.0", numpy="1.26.4", tokenizers="0.22.2")
    part = tmp_path / "tflite.bundle"
    shutil.copytree(tiny_bundle, part)
    manifest = open_bundle(part).manifest
    variants = {name: about for name, about in manifest["variants"].items() if about["engine"] == "litert"}
    defaults = {"*": "tflite-fp32", "litert": "tflite-fp32"}
    seal(part, {**manifest, "variants": variants, "defaults": defaults}, manifest["files"])
    for pi in _running(Pi(tmp_path / "old", "cortex-a72", there)):
        done = edgewise("check", part, "--on", pi.address, env=pi.client(tmp_path / "client"))
        assert done.returncode == 0, done.stderr
        assert "tflite-fp32" in done.stdout and "dynamic" not in done.stdout
        assert "left out, tflite-runtime there misreads it: tflite-dynamic_wi8_afp32" in done.stderr
        emptied(pi)


# a connection that is refused, and why


@pytest.mark.device
def test_a_wrong_key_is_told_with_what_to_do(bare, small_bundle, tmp_path):
    env = bare.client(tmp_path / "client", key=keygen(tmp_path / "other"))
    done = edgewise("check", small_bundle, "--on", bare.address, env=env)
    failed(done, 5, "takes none of your keys", f"`ssh-copy-id -p {bare.port} pi@127.0.0.1`")


@pytest.mark.device
def test_a_host_key_that_has_changed_is_refused(bare, small_bundle, tmp_path):
    keygen(tmp_path / "other")
    known = f"standin {(tmp_path / 'other.pub').read_text()}"
    env = bare.client(tmp_path / "client", known=known)
    failed(
        edgewise("check", small_bundle, "--on", bare.address, env=env),
        5,
        "host key has changed",
        "ssh-keygen -R",
    )
    assert (tmp_path / "client/known_hosts").read_text() == known


@pytest.mark.device
def test_an_unknown_host_key_is_not_accepted(bare, small_bundle, tmp_path):
    env = bare.client(tmp_path, known="")
    failed(
        edgewise("check", small_bundle, "--on", bare.address, env=env),
        5,
        "host key is not known",
        "ssh-keygen -lf",
    )
    assert (tmp_path / "known_hosts").read_text() == ""


@pytest.mark.parametrize(
    "host, word", [("127.0.0.1:{port}", "refused"), ("no-such-host.invalid", "Could not resolve")]
)
def test_nobody_there_is_one_line(small_bundle, host, word):
    need_pi()
    address = "pi@" + host.format(port=free_port())
    failed(edgewise("check", small_bundle, "--on", address, env=dict(os.environ)), 5, address, word)


def test_no_ssh_here_is_one_line(small_bundle, tmp_path):
    done = edgewise("check", small_bundle, "--on", "pi@127.0.0.1", env={**os.environ, "PATH": str(tmp_path)})
    failed(done, 5, "no ssh on this machine")


@pytest.mark.device
def test_no_python_there_is_one_line(bare, small_bundle, tmp_path):
    """A login that finds `cat`, and no python3."""
    keys, only = bare.folder / "authorized_keys", bare.home() / "only"
    before = keys.read_text()
    only.mkdir()
    (only / "cat").symlink_to("/bin/cat")
    keys.write_text(f'command="PATH=/home/pi/only; eval \\"$SSH_ORIGINAL_COMMAND\\"" {before}')
    try:
        done = edgewise("check", small_bundle, "--on", bare.address, env=bare.client(tmp_path))
    finally:
        keys.write_text(before)
        shutil.rmtree(only)
    failed(done, 2, bare.address, "no python3 there; install Python 3.11")
    emptied(bare)


@pytest.mark.device
def test_a_missing_engine_is_exit_2_and_leaves_nothing(equipped, small_bundle, tmp_path):
    bundle = tmp_path / "other.bundle"
    shutil.copytree(small_bundle, bundle)
    manifest = open_bundle(bundle).manifest
    variants = {"pte": {**manifest["variants"]["onnx-fp32"], "engine": "executorch"}}
    seal(bundle, {**manifest, "variants": variants, "defaults": {"*": "pte"}}, manifest["files"])
    done = edgewise("check", bundle, "--on", equipped.address, env=equipped.client(tmp_path / "client"))
    failed(done, 2, "no engine 'executorch' for pte there")
    emptied(equipped)


# a device that goes away


@pytest.mark.device
def test_a_link_that_is_cut_while_it_works(equipped, small_bundle, tmp_path):
    cable = Cable(equipped.port)
    words = ["check", small_bundle, "--on", f"pi@127.0.0.1:{cable.port}"]
    with started(*words, env=equipped.client(tmp_path), until="answers: ") as process:
        assert len(equipped.left()) > 3 and len(equipped.processes()) > 3
        cable.cut()
        failed(ended(process), 5, "the connection was lost")
    emptied(equipped)  # by itself


@pytest.mark.device
def test_a_device_that_loses_power_is_swept_at_the_next_visit(equipped, small_bundle, tmp_path, monkeypatch):
    env = equipped.client(tmp_path)
    with started("check", small_bundle, "--on", equipped.address, env=env, until="answers: ") as process:
        equipped.off()
        failed(ended(process), 5, "the connection was lost")
    assert "bundle.json" in {Path(name).name for name in equipped.left()}
    equipped.on()
    with connected(equipped, tmp_path, monkeypatch) as device:
        device.push({"a": b"x"})
        assert [name for name in equipped.left() if name.endswith("/a")]
        assert "bundle.json" not in {Path(name).name for name in equipped.left()}
    emptied(equipped)


@pytest.mark.device
def test_ctrl_c_leaves_nothing_there(equipped, small_bundle, tmp_path):
    env = equipped.client(tmp_path)
    with started("check", small_bundle, "--on", equipped.address, env=env, until="answers: ") as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: ssh gets it, too
        assert ended(process).returncode == 130
    emptied(equipped)


@pytest.mark.device
def test_a_push_that_broke_off_goes_on_where_it_was(bare, tmp_path, monkeypatch):
    data, most = os.urandom(6_000_000), 4_000_000
    cable = Cable(bare.port, most)
    with (
        pytest.raises(DeviceError, match="the connection was lost"),
        connected(bare, tmp_path, monkeypatch, cable.port) as device,
    ):
        device.push({"big": data})
    eventually(
        lambda: [Path(name).suffix for name in bare.left() if "." in Path(name).name][-1:] == [".part"]
    )
    eventually(lambda: len(bare.processes()) == 1)
    (part,) = [name for name in bare.left() if name.endswith(".part")]
    have = (bare.home() / part).stat().st_size
    assert 1_000_000 < have < most
    again = Cable(bare.port)
    with connected(bare, tmp_path, monkeypatch, again.port) as device:
        device.push({"big": data})
        assert device.pull("big") == data
    assert len(data) - have < again.sent < len(data) - have + 200_000
    emptied(bare)


@pytest.mark.device
def test_ctrl_c_in_the_middle_of_a_push_leaves_nothing(bare, small_bundle, tmp_path):
    words = ["check", small_bundle, "--on", bare.address]
    with started(*words, env=bare.client(tmp_path), until=f"{bare.address}: pushing packages") as process:
        eventually(lambda: any(name.endswith(".part") for name in bare.left()))
        os.killpg(process.pid, signal.SIGINT)
        assert ended(process).returncode == 130
    emptied(bare)


@pytest.fixture
def full(tmp_path):
    """A Pi whose home is a file system of 40 MB."""
    need_pi()
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    if tried.returncode:
        lacking(f"no small disk: {tried.stderr.decode().strip()}")
    yield from _running(Pi(tmp_path / "full", "cortex-a72", disk_mb=40))


@pytest.mark.device
def test_a_full_disk_is_told_and_nothing_stays(full, small_bundle, tmp_path, monkeypatch):
    """The packages fit as an archive (40 MB are free) and not unpacked."""
    done = edgewise("check", small_bundle, "--on", full.address, env=full.client(tmp_path / "client"))
    failed(done, 5, full.address, "No space left on device")
    emptied(full)
    with connected(full, tmp_path / "client", monkeypatch) as device:
        with pytest.raises(
            DeviceError, match="big was not written there: No space left on device: .* MB free"
        ):
            device.push({"big": bytes(60_000_000)})
        device.push({"small": b"x"})
    emptied(full)


# hostile names


@pytest.mark.device
def test_nothing_that_is_said_is_read_by_a_shell(bare, tmp_path, monkeypatch):
    words = [
        "$(touch /tmp/owned)",
        "`touch /tmp/owned`",
        "a b",
        "",
        "'",
        '"',
        "\\",
        "a\nb",
        "!x",
        "*",
        "~",
        "é;#",
    ]
    monkeypatch.setenv("PATH", bare.client(tmp_path)["PATH"])
    channel = SSHChannel(bare.address)
    try:
        script = "import json, sys; print(json.dumps(sys.argv[1:]))"
        done = channel.exec(["python3", "-c", script, *words], 60, lambda line: None)
        assert json.loads(done.stdout) == words
        heard = []
        script = "import sys; print('\\x1b]0;owned\\x07', file=sys.stderr); sys.exit(9)"
        assert channel.exec(["python3", "-c", script], 60, heard.append).code == 9
        assert heard == ["?]0;owned?"]  # a terminal is not spoken to
        for name in ("../x", "/tmp/x", "a;b", "$(x)", "a b", "-x/../../y", "a\nb", ""):
            with pytest.raises(InputError, match="is not allowed"):
                channel.put(b"x", name)
        with pytest.raises(DeviceError, match="leaves the folder"):
            channel.get("../../parts")
    finally:
        channel.close()
    emptied(bare)


@pytest.mark.device
def test_a_login_that_talks_and_another_session_are_no_trouble(bare, tmp_path, monkeypatch):
    (bare.home() / ".bashrc").write_text("echo welcome to this device\n")
    try:
        with connected(bare, tmp_path, monkeypatch) as one:
            one.push({"mine": b"1"})
            with connected(bare, tmp_path, monkeypatch) as two:
                two.push({"mine": b"2"})
                assert two.describe()["machine"] == "aarch64"
            assert one.pull("mine") == b"1"
    finally:
        (bare.home() / ".bashrc").unlink()
    emptied(bare)


@pytest.mark.device
@pytest.mark.parametrize("variant", ["onnx-int8", "tflite-fp32"])
def test_the_python_example_answers_there(equipped, tiny_bundle, tmp_path, monkeypatch, variant):
    """examples/python on the arm64 host, with what `pip install edgewise[...]` would have brought."""
    here = load(tiny_bundle, variant=variant)("wheat and corn")
    with connected(equipped, tmp_path, monkeypatch) as device:
        device.push({**part_of(open_bundle(tiny_bundle), [variant]), "code.zip": code(),
                     "classify.py": ROOT / "examples/python/classify.py"})  # fmt: skip
        command = ["env", f"PYTHONPATH={device.path('code.zip')}", "python3", device.path("classify.py")]
        done = device._channel.exec([*command, device.path("bundle"), "wheat", "and", "corn"], 120, print)
    assert done.stdout.decode() == f"{here.label} {here.score:.2f} ({variant})\n", done.stderr
