"""The ExecuTorch engine, here or in the environment that it has to itself; and the way there."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from apart import need_executorch
from hypothesis import given
from hypothesis import strategies as st

from export import executorch
from runtimes import engines
from runtimes.bundle import open_bundle
from runtimes.engines import elsewhere
from runtimes.engines import executorch as engine
from runtimes.errors import EngineError
from runtimes.load import load

VARIANTS = ["executorch-fp32", "executorch-int8"]
TEXTS = ["wheat harvest and corn export", "opec oil barrels", "a tanker in the harbour", "tariffs on imports"]
HEADER = b"\x3c\0\0\0ET12eh00" + (32).to_bytes(4, "little")


def program(size: int = 64, base: int = 64, segments: int = 16, calls: bytes = b"XnnpackBackend") -> bytes:
    head = HEADER + b"".join(part.to_bytes(8, "little") for part in (size, base, segments))
    return (head + calls).ljust(size, b"\0") + b"\0" * segments


def session(variants, name, **how):
    variant = variants[name]
    return engine.open(variant.path, threads=1, variant=variant.entry(), **how)


def answers(opened, ids, mask):
    feeds = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}
    return opened.run(feeds)["logits"]


@pytest.fixture(scope="module")
def models(pte_bundle):
    """Opened once: each start of a child imports torch."""
    return {name: load(pte_bundle, variant=name, threads=1) for name in VARIANTS}


@pytest.fixture
def fp32(models):
    return models["executorch-fp32"]._session


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_vectors(pte_bundle, models, variant):
    golden = open_bundle(pte_bundle).golden()
    logits = models[variant].logits([str(text) for text in golden["texts"]])
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4 if variant.endswith("fp32") else 0.35)


@pytest.mark.slow
def test_padding_changes_nothing(fp32, tiny_checkpoint):
    """By the mask in the program itself where zeros stand before tokens, by not computing it behind them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint.path).eval()
    ids = np.random.default_rng(0).integers(5, 60, (4, 12))
    mask = np.ones_like(ids)
    mask[1, 7:] = 0  # behind
    mask[2, 3:6] = 0  # between
    mask[3, :4] = 0  # before
    with torch.inference_mode():
        want = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    got = answers(fp32, ids, mask)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.abs(answers(fp32, ids, np.ones_like(ids))[1:] - got[1:]).max() > 1e-3, "the mask counts"
    np.testing.assert_allclose(answers(fp32, ids[1:2, :7], mask[1:2, :7]), got[1:2], atol=1e-6)


@pytest.mark.slow
def test_every_length_up_to_the_planned_one(fp32):
    for length in (3, 32, 4, 31, 17):
        assert answers(fp32, [[5] * length], [[1] * length]).shape == (1, 4)
    with pytest.raises(EngineError, match="33 tokens, but it was exported for at most 32"):
        answers(fp32, [[5] * 33], [[1] * 33])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_texts(models, variant):
    model = models[variant]
    texts = [*TEXTS, "oil", "port " * 40, *TEXTS[::-1]]
    alone = np.concatenate([model.logits([text]) for text in texts])
    np.testing.assert_allclose(model.logits(texts), alone, atol=1e-5)
    assert [one.label for one in model(TEXTS)] == ["grain", "crude", "ship", "trade"]


@pytest.mark.slow
def test_describe_tells_what_runs_and_where(models):
    about = models["executorch-int8"].describe()
    assert (about["engine"], about["providers"], about["threads"]) == ("executorch", ["XNNPACK"], 1)
    assert about["engine_version"][0].isdigit()
    if not engines.installed("executorch"):
        assert Path(about["elsewhere"]) == elsewhere.interpreter("executorch")


@pytest.mark.slow
def test_a_zip_opens_too(pte_bundle, tmp_path):
    from export.pack import slim

    path = slim(pte_bundle, ["executorch-int8"], tmp_path / "one.zip")
    assert load(path, threads=1, variant="executorch-int8")("wheat").label == "grain"


IN_PROCESS = """
import gc, json, sys
from pathlib import Path
import numpy as np
from runtimes.engines.executorch import open
opened = open(Path(sys.argv[1]).read_bytes(), threads=1, variant=json.loads(sys.argv[2]))
gc.collect()
rest = [bytes(1 << 20) for _ in range(8)]  # takes the place of what was freed
feeds = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.array([[1, 1, 1]])}
print(json.dumps([opened.run(feeds)["logits"].tolist(), opened.describe()]))
"""


@pytest.mark.slow
def test_in_the_process_itself_it_gives_the_same(fp32, pte_variants):
    """The program is given as bytes that nobody else holds: the method reads them as long as it lives."""
    variant = pte_variants["executorch-fp32"]
    python = executorch.interpreter()
    done = subprocess.run(
        [python, "-c", IN_PROCESS, str(variant.path), json.dumps(variant.entry())],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(elsewhere.ROOT)},
    )
    assert done.returncode == 0, done.stderr
    logits, about = json.loads(done.stdout.splitlines()[-1])
    assert about["providers"] == ["XNNPACK"] and "elsewhere" not in about
    np.testing.assert_allclose(logits, answers(fp32, [[5, 6, 7]], [[1, 1, 1]]), atol=1e-6)


@pytest.mark.slow
def test_another_delegate_is_an_error(pte_variants):
    with pytest.raises(EngineError, match="no CoreML here"):
        session(pte_variants, "executorch-fp32", providers=["CoreML"])


@pytest.mark.slow
def test_a_damaged_program_is_one_line_and_kills_nobody(pte_variants, tmp_path):
    variant = pte_variants["executorch-int8"]
    whole = variant.path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:middle],
        "table": whole[:60] + b"\xff" * 200 + whole[260:],
        "empty": b"",
        "other": b"no model at all, but long enough to hold a header",
    }
    for name, data in damaged.items():
        path = tmp_path / name
        path.write_bytes(data)
        for source in (path, data)[: 1 if name == "table" else 2]:
            with pytest.raises(EngineError) as caught:
                engine.open(source, threads=1, variant=variant.entry())
            assert "\n" not in str(caught.value), name


@pytest.mark.slow
def test_a_child_that_dies_is_an_error_and_a_new_one_opens(pte_variants):
    if engines.installed("executorch"):
        pytest.skip("it runs in this very process")
    opened = session(pte_variants, "executorch-fp32")
    os.kill(opened._child.pid, signal.SIGSEGV)
    with pytest.raises(EngineError, match=r"executorch crashed \(SIGSEGV\)"):
        answers(opened, [[5, 6, 7]], [[1, 1, 1]])
    assert answers(session(pte_variants, "executorch-fp32"), [[5, 6, 7]], [[1, 1, 1]]).shape == (1, 4)


@pytest.mark.slow
def test_threads_ask_one_at_a_time(fp32):
    want = answers(fp32, [[5, 6, 7]], [[1, 1, 1]])
    got: list[np.ndarray] = []
    asks = [
        threading.Thread(target=lambda: got.append(answers(fp32, [[5, 6, 7]], [[1, 1, 1]]))) for _ in range(8)
    ]
    for ask in asks:
        ask.start()
    for ask in asks:
        ask.join()
    assert len(got) == 8 and all(np.array_equal(one, want) for one in got)


CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from runtimes.engines import elsewhere
class Slow:
    lengths = None
    def run(self, feeds): {run}
    def describe(self): return {{"engine": "executorch"}}
class Engine:
    open_here = staticmethod(lambda source, **how: Slow())
elsewhere.import_module = lambda name: Engine
elsewhere.main()
"""


def stand_in(tmp_path: Path, run: str) -> Path:
    """A Python that runs another engine in the child: what is tested is the pipe, not ExecuTorch."""
    child = tmp_path / "child.py"
    child.write_text(CHILD.format(root=str(elsewhere.ROOT), run=run))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {child} "$3"\n')
    python.chmod(0o755)
    return python


def test_arrays_come_through_the_pipe_as_they_are(tmp_path):
    opened = elsewhere.ElsewhereSession(stand_in(tmp_path, "return feeds"), "executorch", b"graph", {})
    feeds = {"input_ids": np.arange(6).reshape(2, 3), "x": np.float32([np.nan, 1])}
    back = opened.run(feeds)
    assert all(np.array_equal(back[key], feeds[key], equal_nan=True) for key in feeds)
    assert all(back[key].dtype == feeds[key].dtype for key in feeds)


def test_a_fault_in_the_child_comes_back_as_words(tmp_path):
    opened = elsewhere.ElsewhereSession(stand_in(tmp_path, "1 / 0"), "executorch", b"", {})
    for _ in range(2):  # and the child lives on
        with pytest.raises(EngineError, match="ZeroDivisionError: division by zero"):
            opened.run({"input_ids": np.zeros((1, 3), np.int64)})


def test_a_child_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "RUN_SECONDS", 0.3)
    opened = elsewhere.ElsewhereSession(stand_in(tmp_path, "time.sleep(60)"), "executorch", b"", {})
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"took over 0\.3 s"):
        opened.run({"input_ids": np.zeros((1, 3), np.int64)})
    assert time.monotonic() - start < 20 and opened._child.returncode is not None


def test_the_child_ends_with_its_session_and_with_its_parent(tmp_path):
    opened = elsewhere.ElsewhereSession(stand_in(tmp_path, "return feeds"), "executorch", b"", {})
    child = opened._child
    del opened
    assert child.poll() is not None
    code = (
        f"import sys, os, signal; sys.path.insert(0, {str(elsewhere.ROOT)!r})\n"
        "from pathlib import Path\nfrom runtimes.engines.elsewhere import ElsewhereSession\n"
        f"s = ElsewhereSession(Path({str(tmp_path / 'python')!r}), 'executorch', b'', {{}})\n"
        "print(s._child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid), "the child outlives a parent that was killed"


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_python_without_executorch_says_so(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named numpy' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(EngineError, match="python ended: No module named numpy"):
        elsewhere.ElsewhereSession(python, "executorch", b"", {})


def test_the_variable_names_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_EXECUTORCH", str(tmp_path / "none"))
    with pytest.raises(EngineError, match="EDGEWISE_EXECUTORCH=.*no such Python; run `make executorch`"):
        elsewhere.interpreter("executorch")
    monkeypatch.setenv("EDGEWISE_EXECUTORCH", sys.executable)
    assert elsewhere.interpreter("executorch") == Path(sys.executable)
    assert elsewhere.interpreter("onnx") is None


def test_nothing_there_is_one_line(monkeypatch):
    monkeypatch.delenv("EDGEWISE_EXECUTORCH", raising=False)
    monkeypatch.setattr(elsewhere, "ROOT", Path("/nowhere"))
    monkeypatch.setitem(engines.PACKAGES, "executorch", ("no_such_package",))
    with pytest.raises(EngineError, match=r"'executorch' is not installed; make executorch, or pip install"):
        engines.module("executorch")


def test_a_program_of_fitting_size_is_taken():
    assert engine.check_program(program(), "m.pte")
    assert not engine.check_program(program(calls=b"CoreMLBackend"), "m.pte")
    for size in (79, 64, 39, 8, 0):
        with pytest.raises(EngineError, match=r"m\.pte: (cut short|no ExecuTorch program)"):
            engine.check_program(program()[:size], "m.pte")


@given(st.binary(max_size=200))
def test_no_bytes_break_the_header_check(data):
    for candidate in (data, HEADER + data):
        try:
            engine.check_program(candidate, "m.pte")
        except EngineError as error:
            assert str(error).startswith("m.pte: ")


def test_need_executorch_never_skips_where_everything_is_checked(monkeypatch):
    monkeypatch.setenv("EDGEWISE_ALL_TESTS", "1")
    monkeypatch.setenv("EDGEWISE_EXECUTORCH", "")
    monkeypatch.setattr(elsewhere, "ROOT", Path("/nowhere"))
    if not engines.installed("executorch"):
        with pytest.raises(pytest.fail.Exception, match="make executorch"):
            need_executorch()
