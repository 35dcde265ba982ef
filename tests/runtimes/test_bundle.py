import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise
from export.pack import zipped
from runtimes.bundle import add_files, is_safe_name, open_bundle
from runtimes.errors import BundleError
from runtimes.files import write_atomic, writing
from runtimes.golden import check_golden


def test_a_whole_bundle_opens(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert bundle.name == "tiny"
    assert bundle.labels == ["grain", "crude", "ship", "trade"]
    assert set(bundle.defaults) == {"*", "onnx", "litert"}
    golden = bundle.golden()
    assert golden["logits"].shape == (len(golden["texts"]), 4)


def test_folder_and_zip_answer_the_same(tiny_bundle, tmp_path):
    path = tmp_path / "tiny.zip"
    path.write_bytes(zipped(tiny_bundle))
    text = "wheat harvest in the market"
    for variant in open_bundle(tiny_bundle).variants:
        folder = edgewise.load(tiny_bundle, variant=variant, threads=1)(text)
        assert edgewise.load(path, variant=variant, threads=1)(text) == folder


def test_zipping_twice_gives_the_same_bytes(tiny_bundle):
    assert zipped(tiny_bundle) == zipped(tiny_bundle)


def test_every_byte_is_guarded(tiny_bundle, tmp_path):
    """One flipped bit in any file, the manifest included, is refused."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    for name in [*open_bundle(copy).manifest["files"], "bundle.json"]:
        before = (copy / name).read_bytes()
        middle = len(before) // 2
        (copy / name).write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        with pytest.raises(BundleError, match=r"altered|not JSON|must be"):
            open_bundle(copy)
        (copy / name).write_bytes(before)
    open_bundle(copy)


def test_added_files_are_sealed(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    add_files(copy, {"bench/local.json": b"[]"})
    assert open_bundle(copy).read("bench/local.json") == b"[]"
    with pytest.raises(BundleError, match="not allowed"):
        add_files(copy, {"../out": b""})


def test_add_files_refuses_a_zip(tiny_bundle, tmp_path):
    path = tmp_path / "tiny.zip"
    path.write_bytes(zipped(tiny_bundle))
    with pytest.raises(BundleError, match="unpack it"):
        add_files(path, {"x": b""})


def test_unlisted_files_are_never_read(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    (copy / "extra.txt").write_text("x")
    with pytest.raises(BundleError, match=r"extra.txt is not in the bundle"):
        open_bundle(copy).read("extra.txt")


@given(st.text(alphabet="ab./\\ \0:~-_", max_size=30))
def test_safe_names_stay_inside(name):
    if is_safe_name(name):
        parts = name.split("/")
        assert "\\" not in name and "\0" not in name and ":" not in name
        assert all(part not in ("", ".", "..") for part in parts)


@given(
    st.dictionaries(
        st.sampled_from(["schema", "name", "labels", "files", "variants"]), st.none() | st.integers()
    )
)
def test_any_manifest_is_refused_in_one_line(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "bundle.json").write_text(json.dumps(changes))
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_killed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def die(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_folder_leaves_the_old_one(tmp_path):
    with writing(tmp_path / "out") as folder:
        (folder / "data.json").write_text("old")
    with pytest.raises(RuntimeError), writing(tmp_path / "out") as folder:
        (folder / "data.json").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "data.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_golden_rows_of_a_text_bundle_hold_no_windows(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    golden = bundle.golden()
    check_golden(golden, bundle.manifest)
    for name in ("values", "expected"):
        with pytest.raises(ValueError, match="windows of numbers"):
            check_golden({**golden, name: golden["logits"]}, bundle.manifest)
