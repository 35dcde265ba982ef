"""Bad bundles, recipes, data files and command lines: one line each, with its exit code.

Bad requests to the service stand in tests/apps/web/test_server.py.
"""

import json
import zipfile
from pathlib import Path

import pytest

from apps.cli.main import run
from runtimes.bundle import manifest_digest, seal

RECIPE = """
name = "bad"
[data]
name = "rows.csv"
[base]
name = "nowhere"
"""
LABELS = ["a", "b"]


def manifest(**changes):
    base = {
        "schema": 1,
        "name": "bad",
        "task": "text-classification",
        "labels": LABELS,
        "limits": {"max_tokens": 8, "max_chars": 100, "max_batch": 4},
        "signature": {},
        "variants": {
            "onnx-int8": {"engine": "onnx", "precision": "int8", "file": "model.onnx", "size_bytes": 5}
        },
        "defaults": {"*": "onnx-int8"},
        "lineage": [],
    }
    return {**base, **changes}


def bundle(folder: Path, **changes) -> Path:
    """A bundle that is whole as a container; its model is no model."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "tokenizer.json").write_text("{}")
    seal(folder, manifest(**changes), ["model.onnx", "tokenizer.json"])
    return folder


def resealed(folder: Path, **changes) -> None:
    """Change the manifest and give it a right digest again, as an attacker would."""
    path = folder / "bundle.json"
    changed = {**json.loads(path.read_text()), **changes}
    changed["sha256"] = manifest_digest(changed)
    path.write_text(json.dumps(changed))


def entry(**changes):
    return {"bytes": 5, "sha256": "0" * 64, **changes}


def no_manifest(folder):
    (bundle(folder) / "bundle.json").unlink()


def cut_manifest(folder):
    path = bundle(folder) / "bundle.json"
    path.write_text(path.read_text()[:-40])


def altered_manifest(folder):
    path = bundle(folder) / "bundle.json"
    path.write_text(path.read_text().replace('"a"', '"A"'))


def altered_model(folder):
    (bundle(folder) / "model.onnx").write_bytes(b"modeX")


def cut_model(folder):
    (bundle(folder) / "model.onnx").write_bytes(b"mo")


def missing_model(folder):
    (bundle(folder) / "model.onnx").unlink()


def linked_outside(folder):
    secret = folder.with_name("secret")
    secret.write_bytes(b"model")
    (bundle(folder) / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(secret)


def newer_schema(folder):
    resealed(bundle(folder), schema=99)


def no_schema(folder):
    resealed(bundle(folder), schema="one")


def manifest_is_a_list(folder):
    (bundle(folder) / "bundle.json").write_text("[]")


def path_escape(folder):
    resealed(bundle(folder), files={"../../etc/passwd": entry()})


def absolute_path(folder):
    resealed(bundle(folder), files={"/etc/passwd": entry()})


def bad_file_entry(folder):
    resealed(bundle(folder), files={"model.onnx": {"bytes": "many"}})


def no_variants(folder):
    bundle(folder, variants={})


def variant_without_engine(folder):
    bundle(folder, variants={"onnx-int8": {"file": "model.onnx"}})


def variant_of_no_file(folder):
    bundle(
        folder, variants={"x": {"engine": "onnx", "precision": "int8", "file": "no.onnx", "size_bytes": 1}}
    )


def default_of_nothing(folder):
    bundle(folder, defaults={"*": "onnx-int3"})


def repeated_labels(folder):
    bundle(folder, labels=["a", "a"])


def no_limits(folder):
    bundle(folder, limits={"max_tokens": 0})


def unknown_task(folder):
    bundle(folder, task="mind-reading")


def broken_graph(folder):
    bundle(folder)


def zip_of_junk(path):
    path.write_bytes(b"PK\x03\x04 not really")


def zip_without_manifest(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hi")


def zip_bomb(path):
    """The manifest promises 5 bytes, the member unpacks to 50 MB."""
    folder = bundle(path.with_name("source"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "bundle.json", "bundle.json")
        archive.write(folder / "tokenizer.json", "tokenizer.json")
        archive.writestr("model.onnx", b"\0" * 50_000_000)


def zip_cut_short(path):
    folder = bundle(path.with_name("source"))
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("bundle.json", "model.onnx", "tokenizer.json"):
            archive.write(folder / name, name)
    path.write_bytes(path.read_bytes()[:-30])


BUNDLES = [
    (no_manifest, "no bundle.json in it"),
    (cut_manifest, "bundle.json is not JSON"),
    (altered_manifest, "bundle.json was altered"),
    (altered_model, "model.onnx was altered"),
    (cut_model, "model.onnx has 2 bytes, not 5"),
    (missing_model, "model.onnx is missing"),
    (linked_outside, "model.onnx is missing"),
    (newer_schema, "schema 99 is newer than 2"),
    (no_schema, "no schema version"),
    (manifest_is_a_list, "no schema version"),
    (path_escape, "'../../etc/passwd' is not allowed"),
    (absolute_path, "'/etc/passwd' is not allowed"),
    (bad_file_entry, "model.onnx needs 'bytes' and 'sha256'"),
    (no_variants, "no variants"),
    (variant_without_engine, "'engine' must be a str"),
    (variant_of_no_file, "no.onnx is not listed"),
    (default_of_nothing, "default for '*' is 'onnx-int3'"),
    (repeated_labels, "labels must be different strings"),
    (no_limits, "limits.max_tokens must be an integer from 4"),
    (unknown_task, "task 'mind-reading' is not known"),
    (broken_graph, "onnxruntime cannot open model.onnx"),
    (zip_of_junk, "neither a bundle folder nor a complete .zip"),
    (zip_without_manifest, "no bundle.json in it"),
    (zip_bomb, "model.onnx is larger than 5 bytes"),
    (zip_cut_short, "neither a bundle folder nor a complete .zip"),
]


def one_line(capsys, code: int, wanted: int, message: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert code == wanted, err
    assert message in err
    assert err.startswith("edgewise: ") and err.count("\n") == 1, err


@pytest.mark.parametrize(("make", "message"), BUNDLES, ids=[make.__name__ for make, _ in BUNDLES])
def test_bad_bundles(make, message, tmp_path, capsys):
    path = tmp_path / ("bad.zip" if make.__name__.startswith("zip") else "bad.bundle")
    make(path)
    one_line(capsys, run(["run", str(path), "hello"]), 2, message)


RECIPES = [
    ("name = ", "not TOML"),
    ("name = 'x'", "key 'data' is missing"),
    ("[data]\nname = 'x'", "key 'name' is missing"),
    (RECIPE + "[trian]\nepochs = 1", "no key 'trian'; did you mean 'train'?"),
    (RECIPE + "[train]\nepoch = 1", "train: no key 'epoch'; did you mean 'epochs'?"),
    (RECIPE + "[train]\nepochs = 'two'", "train: epochs: must be int, not 'two'"),
    (RECIPE + "[train]\nepochs = true", "train: epochs: must be int, not True"),
    ("train = 3\n" + RECIPE, "train: must be a table"),
    (RECIPE + "[prepare]\nbalance = 'magic'", "prepare: balance: must be one of none, weights"),
    (RECIPE + "[export]\nvariants = ['onnx-int3']", "'onnx-int3' is not one of onnx-fp32"),
    (RECIPE + "[export]\nvariants = []", "name at least one"),
    (RECIPE + "[export]\nvariants = 'onnx-int8'", "variants: must be a list"),
    (RECIPE + "[export]\nlengths = [64, 32]", "lengths: must ascend"),
    (RECIPE + "[export]\nlengths = [32]", "must be train.max_tokens (128)"),
    (RECIPE.replace('"bad"', '"../bad"'), "must be lower-case letters"),
    (RECIPE.replace('name = "bad"', 'name = "bad"\ntask = "telepathy"'), "'telepathy' is not one of"),
]


@pytest.mark.parametrize(("text", "message"), RECIPES, ids=[message[:40] for _, message in RECIPES])
def test_bad_recipes(text, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    one_line(capsys, run(["build", str(recipe), "--dry-run"]), 2, message)


def csv(*rows: str) -> bytes:
    return "\n".join(["text,label", *rows]).encode() + b"\n"


GOOD = [f"word{i} says {i},{'ab'[i % 2]}" for i in range(40)]
DATA = {
    "empty.csv": (b"", "empty"),
    "header-only.csv": (csv(), "no rows"),
    "no-label-column.csv": (b"text,topic\nhello,a\n", "label"),
    "no-text-column.csv": (b"title,label\nhello,a\n", "text"),
    "one-class.csv": (csv(*(f"word{i},a" for i in range(20))), "one"),
    "empty-text.csv": (csv(*GOOD, " ,a"), "empty"),
    "empty-label.csv": (csv(*GOOD, "hello,"), "label"),
    "latin-1.csv": (csv(*GOOD) + "caf\xe9,a\n".encode("latin-1"), "UTF-8"),
    "broken.jsonl": (b'{"text": "a", "label": "x"}\n{"text": ', "2"),
    "not-objects.jsonl": (b'["a", "b"]\n', "1"),
    "number-text.jsonl": (b'{"text": 3, "label": "x"}\n', "text"),
    "rare-class.csv": (csv(*GOOD, "alone,c"), "c"),
    "binary.parquet": (b"PAR1 but no", "parquet"),
    "data.xlsx": (b"PK", "data.xlsx"),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data_files(name, tmp_path, capsys):
    content, message = DATA[name]
    (tmp_path / name).write_bytes(content)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("rows.csv", str(tmp_path / name)))
    argv = ["build", str(recipe), "--runs", str(tmp_path / "runs"), "--until", "data"]
    code = run(argv)
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-1]
    assert code == 2, err
    assert last.startswith("edgewise: ") and name in last and message.lower() in last.lower(), err
    assert "Traceback" not in err
    left = [path.name for path in (tmp_path / "runs" / "bad").iterdir() if path.name != ".lock"]
    assert left == [], "nothing half-written"


COMMANDS = [
    (["fly"], "No such command"),
    (["run"], "Missing argument"),
    (["run", "nowhere.bundle", "hello"], "no such bundle"),
    (["run", "{bundle}", "hello", "--engine", "quantum"], "no variant for engine 'quantum'"),
    (["run", "{bundle}", "hello", "--variant", "onnx-int3"], "no variant 'onnx-int3'"),
    (["run", "{bundle}", "hello", "--threads", "0"], "threads"),
    (["build", "nowhere.toml"], "nowhere.toml"),
    (["build", "{recipe}", "--train.epochs"], "--train.epochs needs a value"),
    (["build", "{recipe}", "stray"], "'stray' is not expected here"),
    (["build", "{recipe}", "--dry-run", "--train.lr", "1"], "no key 'lr'"),
    (["build", "{recipe}", "--dry-run", "--name.x", "1"], "name is no table"),
    (["build", "{recipe}", "--until", "lunch"], "no step 'lunch'"),
    (["train", "{recipe}", "--from", "x"], "--from and --data go together"),
    (["compress", "nowhere", "--data", "x", "--out", "y"], "--layers"),
    (["compress", "nowhere", "--data", "x", "--out", "y", "--layers", "2"], "not a checkpoint"),
    (["compress", "nowhere", "--data", "x", "--out", "y", "--keep", "0.5", "--hidden", "8"], "one after the"),
    (["compress", "nowhere", "--data", "x", "--out", "y", "--keep", "1", "--unlabelled", "z"], "a student"),
    (["export", "nowhere", "--out", "y"], "not a checkpoint"),
    (["check", "nowhere"], "no such bundle"),
    (["bench", "nowhere"], "no such bundle"),
    (["report", "nowhere.jsonl"], "nowhere.jsonl"),
    (["serve", "nowhere"], "no such bundle"),
]


@pytest.mark.parametrize(("argv", "message"), COMMANDS, ids=[" ".join(argv) for argv, _ in COMMANDS])
def test_bad_command_lines(argv, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    whole = bundle(tmp_path / "whole.bundle")
    argv = [word.format(recipe=recipe, bundle=whole) for word in argv]
    one_line(capsys, run(argv), 2, message)


def test_there_are_enough_of_them():
    assert len(BUNDLES) + len(RECIPES) + len(DATA) + len(COMMANDS) >= 40


def test_an_unexpected_error_is_one_line_too(monkeypatch, capsys):
    import runtimes.load

    monkeypatch.setattr(runtimes.load, "open_bundle", lambda path: 1 / 0)
    code = run(["run", "x", "hello"])
    assert code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--debug" in err


def test_debug_shows_the_traceback():
    from runtimes.errors import BundleError

    with pytest.raises(BundleError):
        run(["run", "nowhere.bundle", "hello", "--debug"])


def values(**tables):
    lines = [RECIPE]
    for table, keys in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {value}" for key, value in keys.items()]
    return "\n".join(lines)


VALUES = [
    (values(train={"epochs": 0}), "train.epochs = 0"),
    (values(train={"weight_decay": "nan"}), "weight_decay: must be finite"),
    (values(train={"seed": -1}), "seed -1"),
    (values(budget={"samples": 0}), "samples must be 1 or more"),
    (values(budget={"max_drop": "inf"}), "max_drop: must be finite"),
    (values(bench={"rounds": 0}), "rounds"),
    (values(prepare={"test": 2.0}), "prepare.test = 2.0"),
    (values(vocabulary={"size": -1}), "vocabulary.size = -1"),
    (values(distil={"layers": 0}), "layers must be 1 or more"),
    (values(distil={"max_tokens": 64}), "must be distil.max_tokens (64)"),
]


@pytest.mark.parametrize(("text", "message"), VALUES, ids=[message for _, message in VALUES])
def test_values_that_cannot_work_are_told_before_the_first_step(text, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    one_line(capsys, run(["build", str(recipe), "--dry-run"]), 2, message)


def test_a_foreign_folder_or_file_is_never_replaced(tiny_bundle, tmp_path, capsys):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("keep")
    (tmp_path / "notes.txt").write_text("keep")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("precious", "notes.txt", "link", ".", ".."):
        code = run(["export", str(tiny_bundle), "--out", str(tmp_path / name)])
        one_line(capsys, code, 2, "exists and is no result of edgewise")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "keep"
    assert (tmp_path / "notes.txt").read_text() == "keep"
    code = run(["export", str(tiny_bundle), "--out", "/dev/null"])
    one_line(capsys, code, 2, "exists and is no result of edgewise")
    assert Path("/dev/null").is_char_device()


def test_labels_are_matched_by_name_not_by_number(tiny_bundle, tmp_path, capsys):
    """Rows with two of the model's four labels, in another order; then rows with a label it has not."""
    texts = [
        "tariffs and imports",
        "wheat corn harvest",
        "trade deficit quota",
        "soybean farmers bushels",
    ] * 5
    lines = [f"{text} {i},{'grain' if i % 2 else 'trade'}" for i, text in enumerate(texts)]
    data, out = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    argv = ["bench", str(tiny_bundle), "--quick", "--variant", "onnx-int8", "--data", str(data), "--json"]
    data.write_text("text,label\n" + "\n".join(lines))
    assert run([*argv, "--out", str(out)]) == 0
    metric = json.loads(capsys.readouterr().out)[0]["metric"]
    assert metric["n"] == 20 and metric["value"] > 0.8
    data.write_text(data.read_text().replace(",grain", ",golf"))
    one_line(capsys, run([*argv, "--out", str(out)]), 2, "label 'golf' is not one of")


def test_weights_outside_of_the_graph_are_refused(tiny_bundle, tmp_path, capsys):
    """External data is covered by no digest, and would be looked for beside the bundle, or anywhere."""
    import shutil

    import onnx

    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    graph = copy / "variants" / "onnx-fp32" / "model.onnx"
    model = onnx.load(str(graph))
    onnx.save(model, str(graph), save_as_external_data=True, location="weights.bin", size_threshold=0)
    listed = json.loads((copy / "bundle.json").read_text())
    seal(copy, listed, listed["files"])
    code = run(["run", str(copy), "wheat", "--variant", "onnx-fp32"])
    one_line(capsys, code, 2, "keeps its weights in other files")


def test_hostile_golden_files_fail_the_check(tiny_bundle, tmp_path, capsys):
    import io
    import shutil

    import numpy as np

    good = dict(np.load(tiny_bundle / "golden.npz"))
    cases = {
        "garbage": None,
        "missing": {key: good[key] for key in ("texts", "labels")},
        "short": {**good, "logits": good["logits"][:3]},
        "blank": {**good, "attention_mask": np.zeros_like(good["attention_mask"])},
        "nan": {**good, "logits": good["logits"] * np.nan},
    }
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    listed = json.loads((copy / "bundle.json").read_text())
    for arrays in cases.values():
        buffer = io.BytesIO(b"junk")
        if arrays is not None:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
        (copy / "golden.npz").write_bytes(buffer.getvalue())
        seal(copy, listed, listed["files"])
        one_line(capsys, run(["check", str(copy)]), 2, "golden.npz is damaged")
    cut = {**good, "attention_mask": good["attention_mask"] * (np.arange(good["input_ids"].shape[1]) < 2)}
    buffer = io.BytesIO()
    np.savez(buffer, **cut)
    (copy / "golden.npz").write_bytes(buffer.getvalue())
    seal(copy, listed, listed["files"])
    assert run(["check", str(copy)]) == 3
    assert "tokenizes otherwise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a", "b", "c"]}, "gives logits of shape (1, 4) for 3 labels"),
        ({"labels": ["a", "b\x1b[31m", "c", "d"]}, "labels must be printable"),
        ({"defaults": {}}, "defaults has no '*'"),
        ({"defaults": {"*": ["onnx-int8"]}}, "default for '*'"),
        ({"limits": {"max_tokens": True, "max_chars": 9, "max_batch": 1}}, "limits.max_tokens"),
    ],
)
def test_resealed_manifests(tiny_bundle, tmp_path, capsys, change, message):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    resealed(copy, **change)
    one_line(capsys, run(["run", str(copy), "wheat", "--engine", "onnx"]), 2, message)


@pytest.mark.parametrize(
    "details",
    [{"signatures": {}}, {"signatures": []}, {"signatures": {"8": "nope"}}, {"inputs": []}, {"output": 3}],
    ids=str,
)
def test_hostile_tflite_details(tiny_bundle, tmp_path, capsys, details):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    variants = json.loads((copy / "bundle.json").read_text())["variants"]
    variants["tflite-fp32"] |= details
    resealed(copy, variants=variants)
    code = run(["run", str(copy), "wheat", "--variant", "tflite-fp32"])
    one_line(capsys, code, 2, "")


def test_flipped_bits_in_a_zip(tiny_bundle, tmp_path, capsys):
    """Whatever the archive's own parsers raise, it is one line and exit code 2."""
    import random

    from export.pack import zipped

    whole, rng = zipped(tiny_bundle), random.Random(0)
    path = tmp_path / "bad.zip"
    for _ in range(60):
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
        code = run(["run", str(path), "wheat"])
        err = capsys.readouterr().err
        assert code in (0, 2), err  # a flip in a time stamp or a directory's padding harms nothing
        assert err.count("edgewise: ") == (code == 2) and "--debug" not in err


@pytest.mark.parametrize("out", ["missing/deep/x.zip", "readonly/x"])
def test_places_that_cannot_be_written(tiny_bundle, tmp_path, capsys, out):
    (tmp_path / "readonly").write_text("a file where a folder should be")
    code = run(["export", str(tiny_bundle), "--out", str(tmp_path / out)])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "--debug" not in err and ".tmp" not in err


def test_the_users_folder_is_not_imported(tiny_bundle, tmp_path, monkeypatch):
    """A user's numpy.py or compress.py beside the data must not run in our child processes."""
    from compress.child import in_child
    from compress.quantize import onnx_dynamic_int8

    for name in ("compress.py", "onnx.py", "numpy.py", "device_bench.py"):
        (tmp_path / name).write_text("raise SystemExit('a user file was imported')")
    monkeypatch.chdir(tmp_path)
    source = tiny_bundle / "variants" / "onnx-fp32" / "model.onnx"
    in_child(onnx_dynamic_int8, source=str(source), target=str(tmp_path / "out.onnx"))
    assert (tmp_path / "out.onnx").stat().st_size > 1000
    argv = [
        "bench",
        str(tiny_bundle),
        "--quick",
        "--variant",
        "onnx-int8",
        "--out",
        str(tmp_path / "b.jsonl"),
    ]
    assert run(argv) == 0


def test_debug_behind_a_double_dash_is_a_text(tiny_bundle, capsys):
    assert run(["run", str(tiny_bundle), "--engine", "onnx", "--", "--debug"]) == 0
    assert "--debug" in capsys.readouterr().out


def test_markup_alone_is_an_empty_text(tiny_bundle, capsys):
    one_line(capsys, run(["run", str(tiny_bundle), "<b></b>\u200b", "--engine", "onnx"]), 2, "is empty")
