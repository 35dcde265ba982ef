"""A folder of static files in which a bundle answers in the reader's browser, offline after the first visit.

    python -m apps.web.static_page news.bundle site/
    python -m http.server --directory site     # or any host of static files, over https

Nothing of it runs on a server.
"""

import base64
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from device_bench.devices.browser import RUNTIME
from device_bench.devices.npm import PACKAGES, served
from device_bench.remote import FOLDER, part_of
from runtimes.bundle import Bundle, open_bundle
from runtimes.errors import EdgewiseError, EngineError, InputError
from runtimes.load import choose

PAGE = Path(__file__).parent / "offline"
WORKER = "sw.js"
# Parts of the packages for threads and WebGPU, which a page without headers of its own, or a phone, lacks.
_UNUSED = ("asyncify", "webgpu", "litert_wasm_threaded")


def assemble(bundle: Path, out: Path, variant: str | None = None) -> Path:
    """Writes the folder with one variant (default: the bundle's own), complete or not at all.

    Raises BundleError, EngineError (a variant that no browser runs, npm without network), InputError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; name another one")
    opened = open_bundle(bundle)
    name = _variant(opened, variant)
    files = {**_page(), **_packages(opened.variants[name]["engine"]), **_model(opened, name)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch, "site")
        _write(files, folder)
        folder.chmod(0o755)
        if out.exists():
            out.rmdir()
        folder.replace(out)
    return out


def _variant(bundle: Bundle, asked: str | None) -> str:
    """The variant that is asked for, else the first default that a browser runs."""
    names = [choose(bundle, variant=asked)] if asked else list(bundle.defaults.values())
    for name in names:
        if bundle.variants[name]["engine"] in PACKAGES:
            return name
    raise EngineError(f"{bundle.path}: {', '.join(dict.fromkeys(names))}: no browser runs that; name another")


def _page() -> dict[str, Path | bytes]:
    page = {path.name: path for path in PAGE.iterdir() if path.is_file()}
    return {**page, **{f"edgewise/{path.name}": path for path in RUNTIME.glob("*.js")}}


def _packages(engine: str) -> dict[str, Path | bytes]:
    found = served([engine], lambda line: print(line, file=sys.stderr, flush=True))
    used = {name: source for name, source in found.items() if not any(word in name for word in _UNUSED)}
    return {f"edgewise/engines/{name}": source for name, source in used.items()}


def _model(bundle: Bundle, name: str) -> dict[str, Path | bytes]:
    return {
        f"model/{file.removeprefix(f'{FOLDER}/')}": source for file, source in part_of(bundle, [name]).items()
    }


def _write(files: Mapping[str, Path | bytes], folder: Path) -> None:
    """All files; the service worker last, with their names, digests and sizes in it."""
    listed = []
    for name, source in sorted(files.items()):
        if name == WORKER:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            shutil.copyfile(source, target)
        with target.open("rb") as stream:
            digest = base64.b64encode(hashlib.file_digest(stream, "sha256").digest()).decode()
        listed.append([name, f"sha256-{digest}", target.stat().st_size])
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in listed)
    version = hashlib.sha256(lines.encode()).hexdigest()[:16]
    worker = (PAGE / WORKER).read_text(encoding="utf-8")
    filled = worker.replace("@VERSION@", version).replace("[/*FILES*/]", f"[\n{lines},\n]")
    (folder / WORKER).write_text(filled, encoding="utf-8")


def main() -> int:
    """BUNDLE OUT [VARIANT]"""
    if len(sys.argv) not in (3, 4):
        print("usage: python -m apps.web.static_page BUNDLE OUT [VARIANT]", file=sys.stderr)
        return InputError.exit_code
    try:
        out = assemble(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except EdgewiseError as error:
        print(f"static_page: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"static_page: {error.filename or sys.argv[2]}: {error.strerror}; choose another OUT",
            file=sys.stderr,
        )
        return InputError.exit_code
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.0f} MB; serve it as static files, over https or from localhost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
