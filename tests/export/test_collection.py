"""The bundle of a collection: sealed, opened on folder and .zip, and held to its own answers."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_answers import QUESTIONS

import edgewise
from export.collection import check_collection, compare_golden, golden_told, pack_collection
from export.pack import zipped
from runtimes.bundle import manifest_digest, open_bundle
from runtimes.collection import golden_from, golden_of
from runtimes.errors import BundleError, EngineError, GateError, InputError
from runtimes.load import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tiny_answers, tmp_path):
    return Path(shutil.copytree(tiny_answers, tmp_path / "tiny.bundle"))


@pytest.fixture(scope="module")
def as_zip(tiny_answers, tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "tiny.zip"
    path.write_bytes(zipped(tiny_answers))
    return path


def edgewise_cli(*words):
    command = [sys.executable, "-m", "apps.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def reseal(folder, **changes):
    """A manifest that somebody wrote on purpose: altered, and its own digest right."""
    path = folder / "bundle.json"
    manifest = {**json.loads(path.read_text()), **changes}
    manifest["sha256"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))


def test_folder_and_zip_answer_the_same(tiny_answers, as_zip):
    folder, packed = edgewise.load(tiny_answers, threads=1), edgewise.load(as_zip, threads=1)
    found = folder.many(QUESTIONS)
    assert packed.many(QUESTIONS) == found
    assert any(one.found for one in found)
    source = next(one for one in found if one.found).found[0].sources[0]
    assert source.passage[source.start : source.end] and source.document.startswith("d")
    about = folder.describe()
    assert about["task"] == "answers" and about["index"]["passages"] == 6
    assert about["reader"]["variant"] == about["embedder"]["variant"] == "onnx-int8"


def test_only_the_default_variants_are_in_it(tiny_answers):
    names = open_bundle(tiny_answers, parts=True).manifest["files"]
    assert [name for name in names if name.endswith(".onnx")] == [
        "embedder/variants/onnx-int8/model.onnx",
        "reader/variants/onnx-int8/model.onnx",
    ]


def test_no_whole_text_is_in_it(tiny_answers):
    with sqlite3.connect(tiny_answers / "index.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM texts").fetchone() == (0,)


def test_one_flipped_bit_anywhere_is_refused(copy):
    for name in open_bundle(copy, parts=True).manifest["files"]:
        before = (copy / name).read_bytes()
        middle = len(before) // 2
        (copy / name).write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        with pytest.raises(BundleError, match="altered"):
            load(copy)
        (copy / name).write_bytes(before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": {}}, "no parts"),
        ({"parts": {"reader": "../reader"}}, "no bundle that it lists"),
        ({"parts": {"reader": "/etc"}}, "no bundle that it lists"),
        ({"parts": {"reader": 3}}, "no bundle that it lists"),
        ({"parts": {"reader": "index.sqlite"}}, "no bundle that it lists"),
        ({"parts": {"reader": "reader"}}, "embedder is missing"),
        ({"parts": {"reader": "embedder", "embedder": "reader"}}, "another kind"),
        ({"parts": []}, "must be a dict"),
        ({"schema": 1}, "must be a"),
        ({"schema": 3}, "newer than 2"),
        ({"task": "other"}, "not known"),
        ({"calibration": []}, "must be a dict"),
        ({"calibration": {"threshold": "high"}}, "threshold"),
        ({"calibration": {"threshold": float("nan")}}, "threshold"),
        ({"calibration": {"k": 10**9}}, "k = "),
    ],
)
def test_a_hostile_manifest_is_refused_in_one_line(copy, changes, words):
    reseal(copy, **changes)
    with pytest.raises(BundleError, match=words) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_a_part_must_be_what_is_listed(copy):
    inner = json.loads((copy / "reader/bundle.json").read_text())
    inner["files"]["tokenizer.json"]["sha256"] = "0" * 64
    inner["sha256"] = manifest_digest(inner)
    data = json.dumps(inner).encode()
    (copy / "reader/bundle.json").write_bytes(data)
    import hashlib

    files = json.loads((copy / "bundle.json").read_text())["files"]
    files["reader/bundle.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(copy, files=files)
    with pytest.raises(BundleError, match="tokenizer.json is not what bundle.json lists"):
        load(copy)


def test_bundles_do_not_nest_deeper(copy, tiny_answers):
    shutil.rmtree(copy / "reader")
    shutil.copytree(tiny_answers, copy / "reader")
    from runtimes.bundle import seal

    names = [p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()]
    seal(copy, json.loads((copy / "bundle.json").read_text()), [n for n in names if n != "bundle.json"])
    with pytest.raises(BundleError, match="holds several models"):
        load(copy)


def test_an_index_that_is_none_is_refused(copy):
    from runtimes.bundle import seal

    manifest = json.loads((copy / "bundle.json").read_text())
    for data in (b"", b"no database", b"SQLite format 3\0" + bytes(200)):
        (copy / "index.sqlite").write_bytes(data)
        seal(copy, manifest, manifest["files"])
        with pytest.raises(BundleError) as caught:
            load(copy)
        assert "\n" not in str(caught.value)
        (copy.parent / "hostile.zip").write_bytes(zipped(copy))
        with pytest.raises(BundleError):
            load(copy.parent / "hostile.zip")


def test_who_wants_one_model_is_told(tiny_answers):
    with pytest.raises(BundleError, match=r"several models \(reader, embedder\)"):
        open_bundle(tiny_answers)
    with pytest.raises(EngineError, match="name none"):
        load(tiny_answers, variant="onnx-fp32")
    done = edgewise_cli("bench", tiny_answers)
    assert done.returncode == 2 and "holds several models" in done.stderr


def test_the_gate_passes_where_it_was_packed(tiny_answers, as_zip):
    for path in (tiny_answers, as_zip):
        golden = check_collection(path)["golden"]
        assert golden["agreement"] == 1 and golden["max_confidence"] < 1e-3 and golden["n"] >= 3


def test_the_gate_fails_for_other_answers(tiny_answers, copy):
    bundle = open_bundle(tiny_answers, parts=True)
    golden = golden_of(bundle)
    rows = [vars(one) for one in golden]
    compare_golden(bundle, golden_told(bundle, rows))
    told = (
        {"text": "other"},
        {"start": 999},
        {"document": "dx"},
        {"confidence": float("nan")},
        {"confidence": 0},
    )
    for change in told:
        with pytest.raises(GateError, match=r"does not answer as|damaged"):
            compare_golden(bundle, golden_told(bundle, [{**rows[0], **change}, *rows[1:]]))
    for damaged in (rows[1:], [], None, [1], [{**rows[0], "confidence": "x"}, *rows[1:]]):
        with pytest.raises(GateError):
            compare_golden(bundle, golden_told(bundle, damaged))


def test_a_changed_document_fails_the_gate(copy):
    """The same models over other passages: what a wrong index in the bundle would be."""
    from runtimes.bundle import seal

    manifest = json.loads((copy / "bundle.json").read_text())
    with sqlite3.connect(copy / "index.sqlite") as connection:
        connection.execute("UPDATE passages SET start = start + 1")
    seal(copy, manifest, manifest["files"])
    done = edgewise_cli("check", copy)
    assert done.returncode == 3 and "does not answer as where it was packed" in done.stderr


def test_no_clear_answer_is_an_error(answer_parts, tiny_collection, tmp_path):
    with pytest.raises(InputError, match="--questions"):
        pack_collection(tiny_collection, **answer_parts, questions=["", "x"], out=tmp_path / "a.bundle")
    assert not (tmp_path / "a.bundle").exists()


def test_the_command_line_packs_checks_and_asks(answer_parts, tiny_collection, tmp_path):
    questions = tmp_path / "questions.txt"
    questions.write_text("\n".join(QUESTIONS))
    out = tmp_path / "answers.zip"
    done = edgewise_cli("export", tiny_collection, "--reader", answer_parts["reader"], "--embedder",
                        answer_parts["embedder"], "--questions", questions, "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = edgewise_cli("check", out, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["here"]["golden"]["agreement"] == 1
    golden = next(one for one in golden_of(open_bundle(out, parts=True)) if one.text)
    done = edgewise_cli("run", out, golden.question)
    assert done.returncode == 0, done.stderr
    assert golden.text in done.stdout and f"characters {golden.start}–" in done.stdout
    done = edgewise_cli("run", out, golden.question, "--json")
    (row,) = json.loads(done.stdout)
    assert row["found"][0]["text"] == golden.text and golden.text in row["found"][0]["sources"][0]["sentence"]
    done = edgewise_cli("run", out, "who")
    assert done.returncode == 2 and "too short" in done.stderr


def test_the_ground_floor_answers_alone(tiny_answers):
    """With everything heavy blocked, as on a device."""
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "fastapi", "sklearn", "trainers"}:
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Block())
import edgewise
ask = edgewise.load(sys.argv[1], threads=1)
print(ask("where is the refinery?", k=6).searched)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny_answers)], capture_output=True, text=True,
                          cwd=ROOT, check=False)  # fmt: skip
    assert done.returncode == 0 and int(done.stdout) == 6, done.stderr


def test_answers_are_golden_or_silence(tiny_answers):
    asker = load(tiny_answers, threads=1)
    found, nothing = (
        golden_from(asker(QUESTIONS[0])),
        golden_from(asker("nothing zzz qqq?", where={"no": "such"})),
    )
    assert nothing.text == "" and nothing.document == ""
    assert found.question == QUESTIONS[0]
