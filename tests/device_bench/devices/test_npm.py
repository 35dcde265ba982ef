"""Packages from npm: what is not pinned is refused, and what goes wrong is one line."""

import shutil
import tarfile
from pathlib import Path

import pytest
from browsers import need_packages

from device_bench.devices import npm
from runtimes.errors import EngineError

NAME = "@litertjs/wasm-utils"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An npm of ours; its last argument but one is where a package goes."""
    (folder / "bin").mkdir()
    (folder / "bin/npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_every_pin_is_exact() -> None:
    for name, pin in npm.pins().items():
        assert pin["integrity"].startswith("sha512-") and len(pin["integrity"]) == 95, name
        assert all(len(digest) == 64 for digest in pin["files"].values()), name
        assert "package.json" in pin["files"]
    engines = {name for names in npm.PACKAGES.values() for name in names}
    assert engines | {*npm.TOKENIZERS, npm.CHARTS} == set(npm.pins())


def test_a_package_of_another_sha512_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "package").mkdir()
    (cache / "package/package.json").write_text("{}")
    with tarfile.open(cache / "other.tgz", "w:gz") as archive:
        archive.add(cache / "package/package.json", "package/package.json")
        archive.add(cache / "package/package.json", "../../escaped.json")
    fake_npm(
        cache, monkeypatch, f'[ "$1" = pack ] && [ "$3" = --ignore-scripts ] && cp {cache}/other.tgz "$5"'
    )
    with pytest.raises(EngineError, match="not the package that is pinned"):
        npm.package(NAME, print)
    assert list((cache / "cache/npm").iterdir()) == []


def test_only_pinned_files_are_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as archive:
        for name in ("package/../../escaped", "/escaped", "package/a.js"):
            archive.add(tmp_path / "file", name)
    with pytest.raises(EngineError, match="not those that are pinned"):
        npm._unpack(tmp_path / "bad.tgz", tmp_path / "deep/er/out", {"a.js": "0" * 64}, NAME)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file", "bad.tgz", "a.js"]


def test_no_network_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(cache, monkeypatch, "echo 'npm error network: no answer' >&2; echo more >&2; exit 1")
    with pytest.raises(EngineError, match="npm did not get .*: npm error network: no answer; is the") as told:
        npm.package(NAME, print)
    assert "\n" not in str(told.value)


def test_no_npm_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(EngineError, match="npm is not installed; install Node.js"):
        npm.package(NAME, print)


@pytest.mark.browser
def test_a_damaged_cache_is_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWISE_CACHE")
    need_packages()
    whole = npm.package(NAME, print)
    copy = cache / "cache/npm" / whole.name
    shutil.copytree(whole, copy)
    monkeypatch.setenv("EDGEWISE_CACHE", str(cache / "cache"))
    monkeypatch.setenv("PATH", str(cache))
    assert npm.package(NAME, print) == copy
    with (copy / "dist/index.js").open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(EngineError, match="npm is not installed"):
        npm.package(NAME, print)
