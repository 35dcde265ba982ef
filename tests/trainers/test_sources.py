"""The three places, with a real pip over a local folder of wheels."""

import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtimes.errors import InputError
from trainers import sources
from trainers.sources import find

MEMBER = b"Category\tText\nd\tstring\nclass\t\n\na\tone\nb\ttwo\n"


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_data-1.0-py3-none-any.whl") -> Path:
    folder.mkdir(exist_ok=True)
    info = {
        "tiny_data-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n",
        "tiny_data-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_data-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, content in {**info, **members}.items():
            archive.writestr(member, content)
    return folder / name


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip uses in place of any index."""
    entry = {
        "wheel": "tiny-data==1.0", "folder": "tiny", "licence": "none",
        "splits": {"train": "train.tab"}, "files": {"train.tab": hashlib.sha256(MEMBER).hexdigest()},
    }  # fmt: skip
    monkeypatch.setattr(sources, "_read_index", lambda: {"data": {"tiny/data": entry}})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_index_downloads_checks_and_keeps(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = wheel(index, {"tiny/train.tab": MEMBER, "tiny/__init__.py": b"raise SystemExit('imported')"})
    found = find("tiny/data")
    assert (found.place, found.revision) == ("index", "tiny-data==1.0")
    assert [file.name for file in found.path.iterdir()] == ["train.tab"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "fetching tiny-data==1.0" in err
    made.unlink()
    assert find("tiny/data") == found  # from the cache, no pip
    (found.path / "train.tab").write_bytes(b"altered")
    with pytest.raises(InputError, match=r"package index \(pip download tiny-data==1.0 failed"):
        find("tiny/data")


def test_index_refuses_an_altered_member(index: Path) -> None:
    wheel(index, {"tiny/train.tab": MEMBER + b"c\tthree\n"})
    with pytest.raises(InputError, match=r"sha256 of tiny/train\.tab is not the pinned one"):
        find("tiny/data")
    assert not list(sources.cache_folder().rglob("*.tab"))


def test_index_refuses_a_wheel_without_the_member(index: Path) -> None:
    wheel(index, {"tiny/other.tab": MEMBER})
    with pytest.raises(InputError, match=r"has no tiny/train\.tab"):
        find("tiny/data")


def test_index_bounds_what_it_unpacks(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(index, {"tiny/train.tab": MEMBER})
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(InputError, match="not taken"):
        find("tiny/data")


def test_nothing_has_it_says_what_was_tried(index: Path) -> None:
    with pytest.raises(InputError) as caught:
        find("nobody/nothing")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "'nobody/nothing'",
        "mirror (EDGEWISE_MIRROR is not set)",
        "package index (no wheel",
        "hub (",
    ):
        assert part in message


@pytest.mark.parametrize("name", ["../etc/passwd", "a/b/c", "a b", "", "own/..", "@x"])
def test_a_name_cannot_leave_the_mirror(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        find(name)


def test_mirror_comes_first_and_is_checked(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mirror" / "tiny" / "data"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("text,label\n")
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path / "mirror"))
    found = find("tiny/data")
    assert found.place == "mirror"
    assert found.revision == found.digest[:12]
    assert find(f"tiny/data@{found.revision}") == found
    with pytest.raises(InputError, match="its revision is"):
        find("tiny/data@0123abc")
    digest = hashlib.sha256(b"text,label\n").hexdigest()
    (folder / "README.md").write_text(f"| `train.csv` | `{digest}` |\n")
    assert find("tiny/data").digest == found.digest
    (folder / "train.csv").write_text("text,label\nmore,x\n")
    with pytest.raises(InputError, match=r"train\.csv: altered"):
        find("tiny/data")


def test_a_path_is_a_file_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    found = find(str(tmp_path / "a.csv"))
    assert found.place == "file"
    assert found.path == (tmp_path / "a.csv").resolve()


def test_the_shipped_index_is_whole() -> None:
    index = sources._read_index()
    assert "sentence-transformers/all-MiniLM-L6-v2" in index["model"]
    for kind in ("model", "data"):
        for name, entry in index[kind].items():
            assert sources._NAME.fullmatch(name)
            assert "==" in entry["wheel"]
            assert all(len(digest) == 64 for digest in entry["files"].values())
            assert set(entry.get("splits", {}).values()) <= set(entry["files"])


def fake_hub(monkeypatch: pytest.MonkeyPatch, snapshot: Path, size: int = 10) -> list[dict]:
    """A hub with one repository, at commit "c0ffee"; gives the list of what was asked of it."""
    import huggingface_hub

    asked: list[dict] = []

    def repo_info(self, name, **kwargs):  # type: ignore[no-untyped-def]
        asked.append({"name": name, **kwargs})
        file = SimpleNamespace(rfilename="model.safetensors", size=size)
        return SimpleNamespace(sha="c0ffee", siblings=[file])

    def download(name, **kwargs):  # type: ignore[no-untyped-def]
        asked.append({"name": name, **kwargs})
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_hub_comes_last_and_is_pinned_to_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "c0ffee"
    snapshot.mkdir()
    (snapshot / "model.safetensors").write_bytes(b"weights")
    asked = fake_hub(monkeypatch, snapshot)
    found = find("own/model@v1", "model")
    assert (found.place, found.revision, found.path) == ("hub", "c0ffee", snapshot)
    assert asked[0]["revision"] == "v1"
    assert asked[1]["revision"] == "c0ffee"
    assert not any("bin" in pattern for pattern in asked[1]["allow_patterns"])  # no pickles


def test_hub_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, tmp_path, size=100 << 30)
    with pytest.raises(InputError, match="100 GB on the hub, over the limit"):
        find("own/model", "model")


def test_a_source_distribution_is_read_member_by_member(tmp_path: Path) -> None:
    """pip itself would need a build backend to fetch one, and so a network: only the reading is tested."""
    import io
    import tarfile

    archive = tmp_path / "tiny_data-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("tiny_data-1.0/data/train.tab", "tiny_data-1.0/setup.py"):
            info = tarfile.TarInfo(name)
            info.size = len(MEMBER)
            tar.addfile(info, io.BytesIO(MEMBER))
    entry = {"folder": "tiny_data-1.0/data", "files": {"train.tab": hashlib.sha256(MEMBER).hexdigest()}}
    sources._extract(archive, entry, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["train.tab"]
    with pytest.raises(InputError, match="has no tiny_data-1.0/data/test.tab"):
        sources._extract(archive, {**entry, "files": {"test.tab": "0"}}, tmp_path / "other")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(InputError, match="not a whole wheel"):
        sources._extract(archive, entry, tmp_path / "third")


def test_a_models_gguf_is_dequantised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def from_gguf(file: Path, out: Path) -> None:
        made.append(file)
        out.mkdir()

    monkeypatch.setattr("trainers.gguf.from_gguf", from_gguf)
    (tmp_path / "owner--name").mkdir()
    first = sources._dequantised(tmp_path / "owner--name" / "tiny.gguf")
    assert sources._dequantised(tmp_path / "owner--name" / "tiny.gguf") == first
    assert len(made) == 1 and first.parent == tmp_path
