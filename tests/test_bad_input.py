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
    (newer_schema, "schema 99 is newer than 1"),
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
    (no_limits, "limits.max_tokens must be a positive integer"),
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
