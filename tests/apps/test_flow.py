"""A whole recipe through the command line, on a tiny base model and a user's own CSV."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_news import FILLER, TOPICS, rows

from apps.cli.main import run

pytestmark = pytest.mark.slow

RECIPE = """
name = "tiny"
[data]
name = "{data}"
[base]
name = "{base}"
[prepare]
validation = 0.15
test = 0.2
[train]
epochs = 8
batch_size = 16
learning_rate = 3e-3
max_tokens = 32
precision = "fp32"
[vocabulary]
size = 125
[distil]
layers = 2
epochs = 4
batch_size = 16
learning_rate = 3e-3
max_tokens = 32
precision = "fp32"
[export]
variants = ["onnx-fp32", "onnx-int8"]
lengths = [32]
[budget]
min_agreement = 0.9
max_drop = 0.05
[bench]
quick = true
rounds = 10
cold_starts = 1
"""


@pytest.fixture(scope="module")
def recipe(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    texts, labels = rows(600, seed=7)
    names = list(TOPICS)
    lines = [
        json.dumps({"text": text, "label": names[label]}) for text, label in zip(texts, labels, strict=True)
    ]
    (folder / "rows.jsonl").write_text("\n".join(dict.fromkeys(lines)))
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(data=folder / "rows.jsonl", base=tiny_base))
    return path


@pytest.fixture(scope="module")
def built(recipe):
    """The folder runs/tiny after a whole build."""
    assert run(["build", str(recipe), "--runs", str(recipe.parent / "runs")]) == 0
    return recipe.parent / "runs" / "tiny"


def runs_of(built):
    return ["--runs", str(built.parent)]


def test_everything_is_there(built):
    steps = {path.name.rsplit("-", 1)[0] for path in built.iterdir() if not path.name.startswith(".")}
    assert steps >= {
        "data",
        "baselines",
        "teacher",
        "vocabulary",
        "student",
        "onnx-fp32",
        "onnx-int8",
        "bench",
    }
    assert (built / "tiny.bundle" / "bench" / "local.json").is_file()
    assert "<svg" in (built / "report.html").read_text()
    assert not [path for path in built.iterdir() if ".tmp" in path.name or ".work" in path.name]


def test_the_bundle_answers_and_explains(built, capsys):
    bundle = str(built / "tiny.bundle")
    text = f"{FILLER[0]} wheat {FILLER[1]}"  # one word that tells: of several, none is missed for long
    assert run(["run", bundle, text, "--json", "--explain"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["label"] == "grain"
    assert max(answer["words"], key=lambda word: word["contribution"])["text"] == "wheat"


def test_the_bundle_passes_its_gate_again(built, capsys):
    assert run(["check", str(built / "tiny.bundle"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["variants"]) == {"onnx-fp32", "onnx-int8"}


def test_the_lineage_goes_down_to_the_data(built):
    manifest = json.loads((built / "tiny.bundle" / "bundle.json").read_text())
    assert [step["step"] for step in manifest["lineage"]] == ["base", "finetune", "vocabulary", "distil"]
    assert len(manifest["data"]["digest"]) == 64


def test_a_second_build_does_nothing(built, recipe, capsys):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    assert run(["build", str(recipe), *runs_of(built)]) == 0
    after = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after.get(path)} <= {built / ".lock"}
    assert capsys.readouterr().err.count("reused") == 11


def test_a_changed_key_makes_only_what_follows(built, recipe, capsys):
    argv = ["build", str(recipe), *runs_of(built), "--dry-run", "--json", "--distil.layers", "1"]
    assert run(argv) == 0
    done = {step["step"]: step["done"] for step in json.loads(capsys.readouterr().out)}
    assert done["teacher"] and done["vocabulary"]
    assert not done["student"] and not done["onnx-fp32"] and not done["report"]


def test_a_gate_that_fails_ends_with_3_and_publishes_nothing(built, recipe, capsys):
    bundles = set(built.glob("bundle-*"))
    code = run(["build", str(recipe), *runs_of(built), "--budget.min_cosine", "1.1"])
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 3
    assert err.startswith("edgewise: ") and "is not the same model" in err
    assert set(built.glob("bundle-*")) == bundles


def test_bench_report_and_slim(built, tmp_path, capsys):
    rows_file, page, small = tmp_path / "b.jsonl", tmp_path / "r.html", tmp_path / "small.zip"
    bundle = str(built / "tiny.bundle")
    assert run(["bench", bundle, "--quick", "--variant", "onnx-int8", "--out", str(rows_file)]) == 0
    assert run(["report", str(rows_file), "--out", str(page)]) == 0
    assert run(["export", bundle, "--variant", "onnx-int8", "--out", str(small)]) == 0
    assert page.stat().st_size > 10_000
    capsys.readouterr()
    assert run(["run", str(small), "opec oil"]) == 0
    assert capsys.readouterr().out.startswith("crude")


def test_compress_and_export_without_a_recipe(built, tmp_path, capsys):
    (teacher,), (data,) = built.glob("teacher-*"), built.glob("data-*")
    out, bundle = tmp_path / "small", tmp_path / "small.bundle"
    argv = ["compress", str(teacher), "--data", str(data), "--out", str(out), "--json"]
    assert run([*argv, "--layers", "1", "--vocabulary", "125", "--epochs", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["bytes"] < 0.7 * result["before"]["bytes"]
    argv = ["export", str(out), "--data", str(data), "--out", str(bundle), "--variant", "onnx-fp32"]
    assert run([*argv, "--max-drop", "0.05"]) == 0
    assert run(["check", str(bundle)]) == 0


def test_compress_prunes_what_somebody_else_trained(built, tmp_path, capsys):
    """A folder that save_pretrained wrote and a CSV: heads and neurons go, the answers stay."""
    (teacher,), out = built.glob("teacher-*"), tmp_path / "small"
    foreign = shutil.copytree(teacher, tmp_path / "foreign")
    (foreign / "checkpoint.json").unlink()
    texts, labels = rows(600, seed=11)
    names, csv = list(TOPICS), tmp_path / "rows.csv"
    lines = {f"{text},{names[label]}" for text, label in zip(texts, labels, strict=True)}
    csv.write_text("\n".join(["text,label", *sorted(lines)]))
    argv = ["compress", str(foreign), "--data", str(csv), "--out", str(out), "--json"]
    assert run([*argv, "--keep", "0.5", "--epochs", "4"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["bytes"] < 0.8 * result["before"]["bytes"]
    assert result["after"]["accuracy"] > result["before"]["accuracy"] - 0.1
    lineage = json.loads((out / "checkpoint.json").read_text())["lineage"]
    assert [step["step"] for step in lineage][::3] == ["adopted", "prune"]
    assert {path.name for path in tmp_path.iterdir()} == {"foreign", "rows.csv", "small"}


def test_a_pruned_recipe(built, recipe, capsys):
    argv = ["train", str(recipe), *runs_of(built), "--prune.keep", "0.5", "--prune.steps", "1"]
    argv += ["--prune.max_tokens", "32", "--prune.epochs", "1", "--distil.layers", "1", "--json"]
    assert run([*argv, "--distil.epochs", "1"]) == 0
    paths = json.loads(capsys.readouterr().out)
    sizes = [
        (built / paths[name].rsplit("/")[-1] / "model.safetensors").stat().st_size
        for name in ("teacher", "pruned", "student")
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_going_on_with_new_rows_shows_forgetting(built, recipe, tmp_path, capsys):
    """New rows of two topics only: the figures on the old test rows must be told beside the new ones."""
    (teacher,) = built.glob("teacher-*")
    names = list(TOPICS)
    texts, labels = rows(200, seed=99)
    new = tmp_path / "new.csv"
    lines = {f"{text} again,{names[label]}" for text, label in zip(texts, labels, strict=True) if label < 2}
    new.write_text("\n".join(["text,label", *sorted(lines)]))
    argv = ["train", str(recipe), *runs_of(built), "--from", str(teacher), "--data", str(new)]
    assert run([*argv, "--out", str(tmp_path / "fresh"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["refresh"]
    for test in ("old_test", "new_test"):
        assert 0 <= told[test]["before"]["accuracy"] <= 1 and 0 <= told[test]["after"]["accuracy"] <= 1
    assert "forgetting" in told and "drift" in told


def test_explore_writes_a_page(built, recipe):
    assert run(["train", str(recipe), *runs_of(built), "--explore"]) == 0
    assert "grain" in (built / "explore.html").read_text()


def test_a_killed_build_goes_on(recipe, tmp_path):
    """SIGKILL in the middle of training; the next build ends well and equals an unbroken one."""
    command = [
        sys.executable,
        "-m",
        "apps.cli",
        "train",
        str(recipe),
        "--train.epochs",
        "4",
        "--train.save_every",
        "5",
    ]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    killed = tmp_path / "killed"
    child = subprocess.Popen([*command, "--runs", str(killed)], stderr=subprocess.PIPE, text=True, env=env)
    assert child.stderr is not None
    for line in child.stderr:
        if "teacher" in line:
            break
    deadline = time.monotonic() + 240
    while not list(killed.glob("tiny/.teacher-*.work/**/trainer_state.json")):
        assert time.monotonic() < deadline and child.poll() is None, "no resume point was written"
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stderr.close()
    assert not list(killed.glob("tiny/teacher-*"))
    for runs in (killed, tmp_path / "whole"):
        subprocess.run([*command, "--runs", str(runs)], check=True, capture_output=True, env=env)
    digests = [
        json.loads(next(runs.glob("tiny/teacher-*/checkpoint.json")).read_text())["digest"]
        for runs in (killed, tmp_path / "whole")
    ]
    assert digests[0] == digests[1]


def test_two_processes_train_as_one(recipe, tmp_path):
    """`torchrun` on the unchanged verb: both processes train, one writes."""
    runs = tmp_path / "two"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29517",
    ]
    command += ["-m", "apps.cli", "train", str(recipe), "--runs", str(runs), "--train.epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    (meta,) = runs.glob("tiny/student-*/checkpoint.json")
    assert json.loads(meta.read_text())["labels"] == sorted(TOPICS)
    assert done.stderr.count("[3/") == 2, "one process reports: started and done"


def test_two_builds_do_not_mix(built, recipe, capsys):
    import fcntl

    with (built / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(["build", str(recipe), *runs_of(built)]) == 2
    assert "another build of this recipe is running" in capsys.readouterr().err


def test_the_benchmark_prints_its_tables(built, recipe, capsys):
    """Seed 0 is the default seed: everything is there, only the tables are made."""
    from apps.news.benchmark import main

    main(recipe, [0], built.parent)
    out, err = capsys.readouterr()
    assert err.count("reused") == 11
    assert "| TF-IDF + LinearSVC |" in out and "| onnx-int8 |" in out
    assert "| 0 | onnx-" in out
