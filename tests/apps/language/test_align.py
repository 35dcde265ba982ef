import json
import multiprocessing
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_generator import make_generator

from apps.cli.main import run as run_cli
from apps.language.align import is_align
from apps.language.align.__main__ import main
from apps.language.align.config import check_align, read_align
from apps.language.align.flow import _prepare
from apps.language.align.page import main as make_page
from apps.language.align.plan import Run, method_config, plan
from apps.language.align.pool import run_all
from apps.language.align.results import changed_rows, find_results, read_results, rows_of, verdicts
from apps.language.align.steps import Place, do, is_done, rank
from apps.language.align.tables import markdown
from runtimes.errors import InputError
from trainers.finetune import work_folder

ROOT = Path(__file__).parents[3]
TOML = """
[align]
name = "tiny"
label = "tiny <test>"
world = "sentiment"
tokens = 500
base = "BASE"
encoder = "ENCODER"
data = "DATA"
perplexity = "nobody/nothing"
answer_tokens = 6
samples = 2
sampled_prompts = 8
seeds = [0, 1]
no_peft = ["dpo"]
rows = { reward = 20, judge = 20, test = 10, held_out = 6, watched = 2, policy = 20 }
classifier = { epochs = 1, max_tokens = 32, batch_size = 8 }
sft = { max_tokens = 64, batch_size = 2, learning_rate = 1e-2 }
dpo = { max_tokens = 64, batch_size = 2, learning_rate = 1e-2 }
orpo = { max_tokens = 64, batch_size = 2, learning_rate = 1e-2 }
ppo = { max_tokens = 64, batch_size = 4, rollouts = 4, max_new_tokens = 6 }
evaluation = { points = 1 }
sensitivity_dpo = { strength = [0.5, 0.1] }
"""


@pytest.fixture(scope="module")
def toml(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("align")
    rows = ["text,label"]
    for i in range(60):
        for star, word in ((1, "red fish"), (5, "big tree")):
            rows.append(f"the cat {star} number {i} likes a {word} and. It was {word} too.,{star}")
    (folder / "rows.csv").write_text("\n".join(rows))
    base = make_generator(folder / "base")
    names = {"BASE": base, "ENCODER": tiny_base, "DATA": folder / "rows.csv"}
    told = TOML
    for name, path in names.items():
        told = told.replace(name, str(path))
    (folder / "tiny.toml").write_text(told)
    return folder / "tiny.toml"


@pytest.fixture(scope="module")
def place(toml):
    """A comparison that is done, run by run in this process."""
    made = Place(toml.parent / "runs" / "tiny", read_align(toml))
    _prepare(made)
    for run in plan(made.config):
        do(made, run)
    return made


def test_every_run_leaves_its_result_and_is_not_done_again(place):
    runs = plan(place.config)
    assert all(is_done(place, run) for run in runs)
    names = {run.name for run in runs}
    assert {"reward", "judge", "linear", "start-seed1", "pairs-seed0", "ppo-seed1", "base-seed0"} <= names
    assert {"dpo-peft-none-seed0", "dpo-beta-0.5-seed0"} <= names  # the own beta, 0.1, is not tried again
    assert "dpo-beta-0.1-seed0" not in names
    other = Place(place.folder, read_align(place.folder.parents[1] / "tiny.toml", {"tokens": "501"}))
    assert not any(is_done(other, run) for run in runs)


def test_the_budget_is_one_for_all(place):
    found = read_results(place.folder)
    for method, budget in (("sft", 500), ("ppo", 500), ("dpo", 500), ("orpo", 1000), ("before", 500)):
        for run in found.of(method):
            assert budget <= run["training"]["tokens"] < budget + 300, method
    assert found.of("ppo")[0]["training"]["rollout_tokens"] > 0
    assert [point["tokens"] > 0 for point in found.of("dpo")[0]["training"]["watched"]] == [False, True]


def test_distance_is_nothing_at_the_start_and_something_after(place):
    found = read_results(place.folder)
    assert found.of("before")[0]["kl"]["per_answer"] == pytest.approx(0, abs=1e-4)
    for method in ("sft", "dpo", "orpo"):
        assert found.of(method)[0]["kl"]["per_answer"] > 1e-3
    assert found.of("sft")[0]["perplexity"]["value"] is None
    assert "not found" in found.of("sft")[0]["perplexity"]["reason"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("apps.language.align.results.RESAMPLES", 40)


def test_the_report_holds_what_the_runs_say(place, tmp_path, capsys):
    found = find_results(place.folder.parent)[0]
    rows = rows_of(found)
    assert [row["method"] for row in rows] == ["base", "before", "sft", "chosen", "ppo", "dpo", "orpo"]
    assert len(verdicts(found)) == 6 and len(changed_rows(found)) == 3
    told = markdown(found)
    assert "| DPO | all weights |" in told and "| PPO over SFT |" in told
    assert make_page([str(place.folder), "--out", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert "tiny &lt;test&gt;" in page and "<test>" not in page and page.count("<svg") >= 5
    assert not re.search(r"(src|href)=.(?!#)|url\((?!#)", page)  # nothing is loaded
    assert make_page([str(tmp_path), "--out", str(tmp_path / "b.html")]) == 2
    assert "no results" in capsys.readouterr().err


def test_the_report_is_made_before_all_is_done(place, tmp_path):
    shutil.copytree(place.folder / "results", tmp_path / "results")
    for file in (tmp_path / "results").glob("*.json"):
        if not file.stem.startswith(("sft", "config", "world", "dpo-seed0")):
            file.unlink()
    (tmp_path / "results" / "pool.json").write_text('{"dropped": {"ppo-seed0": "not started"}}')
    found = read_results(tmp_path)
    assert [row["method"] for row in rows_of(found)] == ["sft", "dpo"]
    assert "Left out: ppo-seed0 (not started)" in markdown(found)


def test_a_run_that_was_trained_is_only_looked_at_again(place, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(place.folder, folder)
    again = Place(folder, place.config)
    run = next(run for run in plan(place.config) if run.name == "before-seed0")
    first = json.loads(again.result(run).read_text())
    again.result(run).unlink()
    second = do(again, run)
    assert second["answers"] == first["answers"] and second["scores"] == first["scores"]


def test_best_against_worst():
    pairs = rank(["p", "p", "q", "q"], ["a", "b", "c", " "], np.array([1.0, 3, 2, 0]), 2)
    assert pairs == [{"prompt": "p", "chosen": "b", "rejected": "a", "gap": 2.0}]


# settings


def test_a_run_has_its_own_settings_budget_and_seed(toml):
    config = read_align(toml)
    runs = {run.name: run for run in plan(config)}
    whole = method_config(config, runs["dpo-peft-none-seed0"])
    assert (whole.peft, whole.tokens, whole.seed) == ("none", 500, 1000)
    assert whole.learning_rate == pytest.approx(1e-3)
    assert method_config(config, runs["orpo-seed1"]).tokens == 1000


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokens", "0", "tokens = 0"), ("seeds", "[1, 1]", "seeds"), ("methods", '["dpo"]', "sft is missing"),
        ("methods", '["sft", "kto"]', "'kto' is not one of"), ("pairs", '"human"', "no people's pairs"),
        ("samples", "1", "two answers"), ("dpo.betta", "1", "did you mean 'beta'"),
        ("world", '"x"', "must be one of"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(toml, key, value, words):
    with pytest.raises(InputError, match=words):
        read_align(toml, {key: value})


@pytest.mark.parametrize("name", ["quick", "align-sentiment", "align-helpful"])
def test_the_settings_that_are_shipped_can_be_read(name):
    path = ROOT / "apps" / "language" / f"{name}.toml"
    assert is_align(path) and not is_align(ROOT / "apps" / "news" / "recipe.toml")
    config = read_align(path)
    check_align(config, name)
    assert len(config.seeds) >= 3 and set(config.methods) == {"sft", "ppo", "dpo", "orpo"}


@pytest.mark.parametrize("words", [["--explore"], ["--from", "a", "--data", "b"], ["--out", "c"]])
def test_what_only_a_recipe_takes_is_refused(words, tmp_path, capsys):
    quick = ROOT / "apps" / "language" / "quick.toml"
    assert run_cli(["train", str(quick), "--runs", str(tmp_path), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words[0] in line and "which compares methods" in line and not list(tmp_path.iterdir())


# the pool


def settings(tmp_path, toml, runs):
    return [(Place(tmp_path, read_align(toml)), run) for run in runs]


def pretend(place, run, log, threads):
    """What the tests' runs do: note that they ran, or what their method says."""
    if run.method == "fail":
        log.write_text("failed: it could not\n")
        os._exit(2)
    time.sleep(30 if run.method == "long" else 0)
    with (place.folder / "order").open("a") as file:
        file.write(run.name + "\n")


def run(name, rank=0, after=(), method=""):
    return Run(name, "model", rank, after, method)


def in_pool(tmp_path, toml, runs, jobs=1, until=None, finished=()):
    keys = settings(tmp_path, toml, runs)
    context = multiprocessing.get_context("fork")
    return run_all(keys, jobs, until, set(finished), pretend, context)


def test_runs_start_by_rank_each_after_what_it_needs(tmp_path, toml):
    runs = [run("d", 2), run("a", 1, ("b",)), run("b"), run("c", 1)]
    pool = in_pool(tmp_path, toml, runs, finished=["tiny/c"])
    assert (tmp_path / "order").read_text().split() == ["b", "a", "d"]
    assert sorted(pool.done) == ["tiny/a", "tiny/b", "tiny/c", "tiny/d"]


def test_a_run_that_fails_takes_along_only_what_needs_it(tmp_path, toml):
    runs = [run("a", method="fail"), run("b", 1, ("a",)), run("c", 2, ("b",)), run("d", 3)]
    pool = in_pool(tmp_path, toml, runs, jobs=2)
    assert pool.failed == {"tiny/a": "it could not"} and pool.done == ["tiny/d"]
    assert set(pool.dropped) == {"tiny/b", "tiny/c"}


def test_when_time_is_up_the_rest_is_stopped_and_told(tmp_path, toml):
    pool = in_pool(tmp_path, toml, [run("a", method="long"), run("b", 1)], until=0.3)
    assert pool.dropped == {
        "tiny/a": "stopped: time was up", "tiny/b": "not started: time was up"
    }  # fmt: skip
    assert not (tmp_path / "order").exists()


def test_the_command_line_tells_that_time_was_up_and_what_cannot_work(toml, tmp_path, capsys):
    assert main([str(toml), "--runs", str(tmp_path), "--until-seconds", "0"]) == 4
    assert "tiny/reward: not started: time was up" in capsys.readouterr().err
    assert json.loads((tmp_path / "tiny" / "results" / "pool.json").read_text())["dropped"]
    for wrong in (["--tokens", "0"], ["tokens", "1"], ["--tokens"], ["--nothing", "1"]):
        assert main([str(toml), "--runs", str(tmp_path), *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main([str(toml), str(toml), "--runs", str(tmp_path)]) == 2
    assert "two comparisons have this name" in capsys.readouterr().err


def test_edgewise_train_does_a_comparison(place, toml, capsys):
    """All of it is done before: what is left is the page."""
    assert run_cli(["train", str(toml), "--runs", str(place.folder.parent)]) == 0
    page = place.folder / "align.html"
    assert capsys.readouterr().out.strip() == str(page) and "<svg" in page.read_text()
    assert run_cli(["train", str(toml), "--runs", str(place.folder.parent), "--align.tokens", "0"]) == 2


def test_a_worker_does_a_run_and_keeps_what_it_says(place, toml, tmp_path):
    copy = Place(tmp_path / "tiny", place.config)
    shutil.copytree(place.folder, copy.folder)
    runs = {run.name: run for run in plan(copy.config)}
    bad = replace(runs["before-seed0"], seed=7, name="before-seed7", after=())
    shutil.rmtree(copy.checkpoint("linear"))
    keys = [(copy, runs["linear"]), (copy, bad)]
    pool = run_all(keys, 2, None, set(), context=multiprocessing.get_context("fork"))
    assert pool.done == ["tiny/linear"] and is_done(copy, runs["linear"])
    assert "right on" in (copy.folder / "logs" / "linear.log").read_text()
    assert "start-seed7" in pool.failed["tiny/before-seed7"]


def test_what_was_begun_by_other_settings_goes(toml, tmp_path):
    """Checkpoints and resume points of runs that left no result."""
    first = Place(tmp_path / "tiny", read_align(toml))
    _prepare(first)
    made = first.checkpoint("ppo-seed1")
    begun = (made, work_folder(made))
    for folder in begun:
        folder.mkdir(parents=True)
    _prepare(first)
    assert all(folder.is_dir() for folder in begun)
    _prepare(Place(tmp_path / "tiny", read_align(toml, {"tokens": "501"})))
    assert not any(folder.exists() for folder in begun)
