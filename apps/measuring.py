"""A bundle, and perhaps its checkpoint, → bench rows; the gate on a device."""

import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from device_bench.bench import BenchConfig, BenchEntry, bench
from device_bench.figures import choice
from device_bench.overview import with_tokenization
from device_bench.rows import to_bytes
from runtimes.bundle import Bundle, add_files, open_bundle
from runtimes.errors import EdgewiseError, InputError
from runtimes.golden import inputs_of
from runtimes.load import choose

LOCAL = "local"


def measure_bundle(
    path: Path,
    reference: Path | None,
    data: str | None,
    variants: list[str] | None,
    config: BenchConfig,
    on: Sequence[str] = (LOCAL,),
    profile: str | None = None,
    browser: bool = False,
) -> tuple[list[dict[str, Any]], list[EdgewiseError]]:
    """One interleaved run a device of the named variants (default: all); here the reference beside them.

    `profile` runs it on this machine under the limits of a weaker one, `browser` in the browsers of phones.
    A sustained run takes the bundle's default variant where none is named. Of several devices, which run at
    once, some may fail: their errors come beside the rows of the others. One alone raises.
    """
    bundle = open_bundle(path)
    texts, labels = _sample(bundle, data)
    if config.sustained and (browser or "browser" in on):
        raise InputError("bench: --sustained runs where Python does; leave it out for browsers")
    if config.sustained and not variants:
        variants = [choose(bundle) if tuple(on) == (LOCAL,) else bundle.defaults["*"]]
    if profile is not None and tuple(on) != (LOCAL,):
        raise InputError("bench: --profile limits this machine; leave out --on")
    if tuple(on) == (LOCAL,) and profile is None and not browser:
        return _here(path, bundle, reference, variants, texts, labels, config), []
    if reference is not None:
        raise InputError("bench: --reference runs PyTorch here, without limits; leave out --on and --profile")
    from device_bench.devices import reach
    from device_bench.remote import bench_on

    how: dict[str, Any] = {"profile": profile, "threads": config.threads} if profile else {}

    def measured(address: str) -> list[dict[str, Any]]:
        with reach(address, browser, **how) as device:
            return bench_on(device, bundle, variants, texts, labels, config, profile)

    found = _at_once(measured, on)
    measured_on = [result for result in found.values() if not isinstance(result, EdgewiseError)]
    return told_apart(measured_on), [result for result in found.values() if isinstance(result, EdgewiseError)]


def told_apart(found: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of several devices; the second of one name is "NAME (2)": rows tell no addresses."""
    seen: Counter[str] = Counter()
    rows = []
    for device in found:
        name = device[0]["device"]["name"]
        seen[name] += 1
        shown = name if seen[name] == 1 else f"{name} ({seen[name]})"
        rows += [{**row, "device": {**row["device"], "name": shown}} for row in device]
    return rows


def _here(
    path: Path,
    bundle: Bundle,
    reference: Path | None,
    variants: list[str] | None,
    texts: list[Any],
    labels: list[Any] | None,
    config: BenchConfig,
) -> list[dict[str, Any]]:
    names = [choose(bundle, variant=name) for name in variants] if variants else list(bundle.variants)
    entries = {"checkpoint pytorch-fp32": BenchEntry(reference)} if reference else {}
    entries |= {name: BenchEntry(path, variant=name) for name in names}
    return bench(entries, texts, labels, config)


def require_places(bundle: Path, out: Path, add: bool) -> None:
    """Raises InputError, before anything is measured, where the rows could not be written afterwards."""
    if add and not bundle.is_dir():
        raise InputError(f"{bundle}: --add writes into a bundle folder; unpack it and name the folder")
    if out.exists() and not out.is_file():
        raise InputError(f"{out}: exists and is not a file; choose another --out")
    parents = out.absolute().parents
    for place in [next(one for one in parents if one.exists()), *([bundle] if add else [])]:
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise InputError(f"{place}: cannot be written to ({error.strerror}); choose another") from None


def keep(path: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows into the bundle, a file a device: bench/<device>.json, with the default for it marked in them.

    Names of the files. Rows of an earlier run on the same device are replaced. Raises BundleError for a .zip.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        names = [row["device"]["name"], row["simulated_profile"], "emulated" if row["emulated"] else None]
        slug = re.sub("[^a-z0-9]+", "-", " ".join(filter(None, names)).lower()).strip("-") or "device"
        files.setdefault(f"bench/{slug[:80]}.json", []).append(row)
    for name, found in files.items():
        best = choice(with_tokenization(found))
        if best is not None:
            files[name] = [{**row, "default": row["variant"] == best["variant"]} for row in found]
    add_files(path, {name: to_bytes(found) for name, found in files.items()})
    return list(files)


def check_on(path: Path, on: Sequence[str], browser: bool = False) -> dict[str, Any]:
    """Device → what `export.gate.check` gives, of the golden texts answered there, or how it failed.

    One device alone raises: GateError, DeviceError.
    """
    from device_bench.devices import reach
    from device_bench.remote import answers_on
    from export.gate import check_answers

    bundle = open_bundle(path)
    texts = inputs_of(bundle.golden())

    def checked(address: str) -> dict[str, Any]:
        with reach(address, browser) as device:
            return check_answers(bundle, answers_on(device, bundle, None, texts))

    return _at_once(checked, on)


def check_collection_on(path: Path, on: Sequence[str]) -> dict[str, Any]:
    """Device → agreement with the golden answers of a collection and the memory that it took there, or how it
    failed; "here" where no device is named. One alone raises: GateError, DeviceError."""
    from export.collection import check_collection, compare_golden, golden_told

    if not on:
        return {"here": check_collection(path)}
    from device_bench.devices import reach
    from device_bench.remote import ask_on
    from runtimes.collection import golden_of

    bundle = open_bundle(path, parts=True)
    questions = [one.question for one in golden_of(bundle)]

    def checked(address: str) -> dict[str, Any]:
        with reach(address) as device:
            told = ask_on(device, bundle, questions)
            memory = {key: value for key, value in told.items() if key.endswith("_mb")}
            emulated = device.describe()["emulated"]
        return {**compare_golden(bundle, golden_told(bundle, told["golden"])), **memory, "emulated": emulated}

    return _at_once(checked, on)


def _at_once(work: Callable[[str], Any], on: Sequence[str]) -> dict[str, Any]:
    """Device → what came of it: a result, or the EdgewiseError that it ended with.

    Each runs in a thread of its own, but this machine and its browser one after the other: they would take
    the processor from each other.
    """
    if len(set(on)) != len(on):
        raise InputError("a device is named twice")
    here = [address for address in on if address in (LOCAL, "browser")]
    groups = [*([here] if here else []), *([address] for address in on if address not in here)]

    def tried(address: str) -> Any:
        try:
            return work(address)
        except EdgewiseError as error:
            if len(on) == 1:
                raise
            return error

    over = threading.Event()

    def each(group: list[str]) -> dict[str, Any]:
        return {address: tried(address) for address in group if not over.is_set()}

    if len(groups) == 1:  # in this thread, which Ctrl-C reaches
        return each(list(on))
    from device_bench.devices.local import end_live

    with ThreadPoolExecutor(len(groups)) as pool:
        running = [
            pool.submit(lambda group: {address: tried(address) for address in group}, one) for one in groups
        ]
        try:
            done = [one.result() for one in running]
        except BaseException:  # Ctrl-C, which the threads do not hear of
            end_live()
            raise
    found = {address: result for results in done for address, result in results.items()}
    return {address: found[address] for address in on}


def _sample(bundle: Bundle, data: str | None) -> tuple[list[Any], list[Any] | None]:
    """Labelled rows where they are given, else the golden inputs without labels."""
    if data is None:
        return inputs_of(bundle.golden()), None
    from apps.rows import test_rows
    from trainers.examples import examples
    from trainers.series_data import SeriesData, windows_of
    from trainers.texts import Texts

    found = test_rows(data, bundle.task, bundle.labels)
    if isinstance(found, SeriesData):
        return windows_of(found, bundle.limits["window"], bundle.limits["patch"], rest=True), None
    if isinstance(found, Texts):
        from export.gate_generator import PROMPTS, prompts_of

        return prompts_of(found.splits["test"], PROMPTS), None
    return examples(found.splits["test"])
