import json
from pathlib import Path

import pytest

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import MANIFEST, open_checkpoint, seal

META = {
    "task": "text-classification", "labels": ["a", "b"], "data": {}, "metrics": {}, "seed": 0,
    "limits": {"max_tokens": 8, "max_chars": 100, "max_batch": 4},
    "lineage": [{"step": "base", "digest": "x"}, {"step": "finetune", "parent": "x"}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_seal_and_open(folder: Path) -> None:
    sealed = seal(folder, META)
    opened = open_checkpoint(folder)
    assert opened == sealed
    assert (opened.task, opened.labels, opened.limits["max_tokens"]) == ("text-classification", ["a", "b"], 8)
    assert opened.meta["lineage"][-1]["digest"] == opened.digest
    assert opened.meta["lineage"][0]["digest"] == "x"
    assert "digest" not in META["lineage"][-1]  # type: ignore[index]


def test_digest_covers_names_and_bytes_but_not_the_metrics(folder: Path) -> None:
    first = seal(folder, META).digest
    assert seal(folder, {**META, "metrics": {"test": 1}}).digest == first
    (folder / "config.json").write_text("{ }")
    second = seal(folder, META).digest
    (folder / "config.json").rename(folder / "other.json")
    assert len({first, second, seal(folder, META).digest}) == 3


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: (f / "model.safetensors").write_bytes(b"weight"), "cut short or altered"),
    (lambda f: (f / "model.safetensors").unlink(), "cut short or altered"),
    (lambda f: (f / MANIFEST).unlink(), "not a checkpoint"),
    (lambda f: (f / MANIFEST).write_text('{"schema": 1'), "not readable as JSON"),
    (lambda f: (f / MANIFEST).write_text("[1]"), "not a JSON object"),
    (lambda f: (f / MANIFEST).write_text('{"schema": 2}'), "schema 2 is newer"),
    (lambda f: (f / MANIFEST).write_text('{"schema": 1}'), "task, labels, limits"),
    (lambda f: edit(f, labels="ab"), "labels is not a list"),
    (lambda f: edit(f, limits={"max_tokens": 0}), "limits needs"),
])  # fmt: skip
def test_bad_checkpoints(folder: Path, change: object, message: str) -> None:
    seal(folder, META)
    change(folder)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        open_checkpoint(folder)


def edit(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**meta, **changes}))


def test_new_folder_is_whole_or_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("old", "new"):
        with writing(out) as new:
            (new / "data.json").write_text(content)
    with pytest.raises(KeyboardInterrupt), writing(out) as new:
        (new / "data.json").write_text("half")
        raise KeyboardInterrupt
    assert (out / "data.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
