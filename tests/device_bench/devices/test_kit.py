import os
import tarfile
from pathlib import Path

import phone
import pytest

from device_bench.devices import kit
from runtimes.errors import EngineError, InputError

ROOT = Path(__file__).parents[3]


@pytest.mark.device
def test_the_kit_is_whole_and_has_nothing_that_no_model_needs(tmp_path):
    phone.need(kit.shutil.which("mmdebstrap"), "no mmdebstrap; apt-get install mmdebstrap")
    said = []
    made = kit.kit(said.append)
    assert kit.kit(pytest.fail) == made, "the second time it is only read"
    with tarfile.open(made.path) as archive:
        members = {member.name: member for member in archive}
    assert {"python", "bin/python3.11", "lib/ld-linux-aarch64.so.1", "lib/libstdc++.so.6"} <= members.keys()
    for package in ("numpy", "tokenizers", "onnxruntime", "ai_edge_litert"):
        assert f"{kit.SITE}/{package}/__init__.pyc" in members
    assert not [name for name in members if name.endswith((".a", ".h", ".py.orig")) or "/tests/" in name]
    assert all(member.isfile() or member.isdir() for member in members.values()), "no links to follow"
    assert not [name for name in members if name.startswith("/") or ".." in name.split("/")]
    assert sum(member.size for member in members.values() if member.isfile()) == made.unpacked < 160e6
    assert all(member.mtime == member.uid == 0 for member in members.values())


def test_the_same_files_make_the_same_archive(tmp_path):
    digests = set()
    for number, order in enumerate((["a", "b/c"], ["b/c", "a"])):
        tree = tmp_path / str(number)
        for name in order:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
            os.utime(tree / name, (number + 1, number + 1))
        digests.add(kit._pack(tree, tmp_path / f"{number}.tar.gz"))
    assert len(digests) == 1
    (tree / "a").chmod(0o755)
    assert kit._pack(tree, tmp_path / "more.tar.gz") not in digests


def test_without_the_tool_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^[^\n]*apt-get install mmdebstrap[^\n]*$"):
        kit.kit(pytest.fail)
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_a_download_that_fails_is_one_line_and_leaves_no_half_kit(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho 'E: cannot reach the archive' >&2\nexit 3\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineError, match=r"^kit: [^\n]*E: cannot reach the archive[^\n]*$"):
        kit.kit(lambda line: None)
    assert list((tmp_path / "kit").iterdir()) == []
