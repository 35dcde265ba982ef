"""A model that a user already has + test rows → gated bundle: reference answers, variants, gate, pack."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from apps.rows import test_rows
from export.adopt import MAX_TOKENS, Adopted, adopt, kind_of
from export.gate import Budget
from export.original import Original
from export.pack import EDGE_CASES, pack, sample_rows
from export.variant import CALIBRATED, DEFAULT, KNOWN, Variant
from export.variants import export_variant
from runtimes import engines
from runtimes.errors import InputError
from runtimes.files import require_replaceable
from runtimes.load import TASKS, task_module
from runtimes.text import Tokenizer
from trainers.data import Dataset, open_data
from trainers.files import sha256_file
from trainers.finetune import MAX_BATCH, MAX_CHARS, TASK
from trainers.metrics import classification_report

MAX_TOKENIZER_BYTES = 64 << 20
MAX_LABELS_BYTES = 4 << 20
MAX_LABELS = 10_000
CALIBRATION = 200
# A tokenizer that knows less of the words than this is not the model's.
MAX_UNKNOWN = 0.5


@dataclass(frozen=True)
class Brought:
    """What a user gives beside the data: paths as typed, labels in the order of the model's outputs."""

    source: Path
    kind: str
    tokenizer: bytes
    labels: list[str]
    config: bytes
    max_tokens: int | None


def adopt_model(
    source: Path,
    task: str | None,
    tokenizer: Path | None,
    labels: str | None,
    data: str | None,
    out: Path,
    wanted: list[str] | None,
    max_drop: float,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Make, gate and pack a bundle out of a .onnx, .tflite or .keras file or a SavedModel folder.

    Raises InputError for what does not fit together, GateError for a variant that is another model.
    """
    brought = _read(source, task, tokenizer, labels, max_tokens)
    if data is None:
        raise InputError(
            "the gate needs test rows: give --data (a CSV with text and label, a folder, a hub id)"
        )
    if out.suffix == ".zip":
        raise InputError(f"{out}: a model is exported to a folder; cut that down to a .zip afterwards")
    require_replaceable(out)
    rows = test_rows(data, TASK, brought.labels)
    assert isinstance(rows, Dataset)
    dataset = _readable(rows, brought.tokenizer)
    with TemporaryDirectory(prefix="edgewise-") as folder:
        if brought.kind in ("onnx", "tflite"):
            original, variants = _from_file(brought, dataset, wanted, Path(folder))
        else:
            dataset, calibration = _set_aside(data, dataset, wanted or [])
            original, variants = _from_keras(brought, dataset, calibration, wanted, Path(folder))
        variants = _smaller(variants, wanted)
        name = out.name.removesuffix(".bundle")
        packed = pack(original, variants, dataset, out, name, Budget(max_drop=max_drop))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    test = original.meta["metrics"]["test"]
    return {
        "bundle": str(packed.path),
        "bytes": size,
        "original": {
            "accuracy": test["accuracy"],
            "n": test["n"],
            "max_tokens": original.limits["max_tokens"],
        },
        "parity": packed.parity,
    }


def _read(
    source: Path, task: str | None, tokenizer: Path | None, labels: str | None, max_tokens: int | None
) -> Brought:
    if task is None:
        raise InputError(f"--from needs --task; the tasks are: {', '.join(TASKS)}")
    if task not in TASKS:
        raise InputError(f"--task {task!r} is not one of: {', '.join(TASKS)}")
    kind = kind_of(source)
    if tokenizer is None:
        raise InputError("--from needs --tokenizer: the tokenizer.json that the model was trained with")
    if labels is None:
        raise InputError("--from needs --labels: labels.json or 'a,b,c', in the order of the model's outputs")
    names, config = read_labels(labels)
    return Brought(source, kind, read_tokenizer(tokenizer), names, config, max_tokens)


def read_tokenizer(path: Path) -> bytes:
    """A tokenizer.json of the tokenizers library. Raises InputError where it is none."""
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{path}: no such tokenizer; give a tokenizer.json (AutoTokenizer … save_pretrained)"
        )
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise InputError(f"{path}: over {MAX_TOKENIZER_BYTES >> 20} MB; not a tokenizer.json")
    data = path.read_bytes()
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(
            f"{path}: not JSON; give a tokenizer.json (save_pretrained of a fast tokenizer)"
        ) from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
        raise InputError(
            f"{path}: no 'model' in it, so not a tokenizer.json; a vocabulary or config is not enough"
        )
    try:
        opened = Tokenizer.from_bytes(data, MAX_TOKENS)
        opened.encode(["a text to try it with"])
    except InputError as error:
        raise InputError(
            f"{path}: {str(error).removesuffix('; pack the bundle again')}; save it again"
        ) from None
    except BaseException as error:  # a panic of the Rust side is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise InputError(f"{path}: the tokenizers library fails on it; save it again") from None
    return data


def read_labels(given: str) -> tuple[list[str], bytes]:
    """Labels from 'a,b,c' or a JSON file (a list, {"0": "a"}, or a transformers config); and a config.json.

    Raises InputError where they are no different printable names.
    """
    config: dict[str, Any] = {}
    path = Path(given)
    if given.endswith(".json") or path.is_file():
        labels, config = _labels_file(path)
    else:
        labels = [name.strip() for name in given.split(",")]
    for name in labels:
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200:
            raise InputError(f"--labels: {name!r} is not a printable name of up to 200 characters")
    if not 2 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise InputError(
            f"--labels: {len(labels)} names, {len(set(labels))} of them different; 2 or more needed"
        )
    if not config:
        config = {"problem_type": "single_label_classification"}
    numbered = {str(index): name for index, name in enumerate(labels)}
    config |= {"id2label": numbered, "label2id": {name: index for index, name in enumerate(labels)}}
    return labels, json.dumps(config, indent=1, ensure_ascii=False).encode() + b"\n"


def _labels_file(path: Path) -> tuple[list[str], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"--labels {path}: no such file; give labels.json, or the names as 'a,b,c'")
    if path.stat().st_size > MAX_LABELS_BYTES:
        raise InputError(f"--labels {path}: over {MAX_LABELS_BYTES >> 20} MB; not a list of labels")
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f'--labels {path}: not JSON ({error}); write ["a", "b"]') from None
    if isinstance(told, list):
        return told, {}
    table = told.get("id2label", told) if isinstance(told, dict) else None
    try:
        if not isinstance(table, dict) or sorted(map(int, table)) != list(range(len(table))):
            raise ValueError
        labels = [table[key] for key in sorted(table, key=int)]
    except ValueError:
        raise InputError(
            f'--labels {path}: neither ["a", "b"] nor {{"0": "a", "1": "b"}} nor a config with id2label'
        ) from None
    return labels, told if "model_type" in told else {}


def _readable(dataset: Dataset, tokenizer: bytes) -> Dataset:
    """The rows that the tokenizer knows anything of. Raises InputError where that is too few of them."""
    opened = Tokenizer.from_bytes(tokenizer, MAX_TOKENS)
    test = dataset.splits["test"]
    ids = opened.encode(test.texts)
    if len(test.texts) == 1:
        ids = list(ids)
    kept = [row for row, tokens in enumerate(ids) if len(tokens) > opened.special_tokens]
    lost = len(ids) - len(kept)
    if lost > len(ids) // 10:
        raise InputError(f"--tokenizer finds no token in {lost} of {len(ids)} rows; it is of another model")
    if lost:
        print(f"{lost} of {len(ids)} rows left out: no token in them", file=sys.stderr)
    unknown = _unknown_id(tokenizer)
    tokens = np.concatenate([np.array(ids[row]) for row in kept])
    share = float((tokens == unknown).mean()) if unknown is not None else 0.0
    if share > MAX_UNKNOWN:
        raise InputError(
            f"--tokenizer knows only {1 - share:.0%} of the tokens in --data; it is of another model"
        )
    return Dataset(dataset.name, dataset.label_names, {"test": test.take(kept)}, dataset.source)


def _unknown_id(tokenizer: bytes) -> int | None:
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_str(tokenizer.decode("utf-8"))
    token = getattr(fast.model, "unk_token", None)
    return fast.token_to_id(token) if token else None


def _from_file(
    brought: Brought, dataset: Dataset, wanted: list[str] | None, folder: Path
) -> tuple[Original, list[Variant]]:
    """The user's own file is the original, and a variant itself; others are quantized from it."""
    adopted = _adopted(brought, folder / "adopted")
    own = adopted.variant
    makable = [name for name in KNOWN if KNOWN[name][2] == own.name and name not in CALIBRATED]
    usual = [name for name in makable if name in DEFAULT]
    names = list(dict.fromkeys(wanted or [own.name, *usual]))
    for name in names:
        if name not in (own.name, *makable):
            raise InputError(f"variant {name!r} cannot be made of it, only {', '.join([own.name, *makable])}")
    model = _open(adopted, brought)
    original = _original(brought, model, adopted.max_tokens, dataset)
    made = {own.name: own}
    for name in (name for name in names if name != own.name):
        print(f"variant: {name}", file=sys.stderr, flush=True)
        made[name] = export_variant(name, folder, folder / "adopted", (), folder / name)
    return original, [made[name] for name in names]


def _from_keras(
    brought: Brought, dataset: Dataset, calibration: list[str], wanted: list[str] | None, folder: Path
) -> tuple[Original, list[Variant]]:
    """The Keras model, run by TensorFlow in a child, is the original; its conversions are the variants."""
    from export.keras import USUAL, VARIANTS, convert

    names = list(dict.fromkeys(wanted or USUAL))
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"variant {name!r} cannot be made of it, only {', '.join(VARIANTS)}")
    test = dataset.splits["test"]
    texts = [test.texts[row] for row in sample_rows(len(test.texts), Budget().samples)]
    print(f"convert: {', '.join(names)}", file=sys.stderr, flush=True)
    converted = convert(
        brought.source,
        brought.kind,
        names,
        brought.tokenizer,
        len(brought.labels),
        [*texts, *EDGE_CASES],
        calibration,
        folder,
        brought.max_tokens,
        _fallback(brought.tokenizer),
    )
    model = _model(
        converted.session, brought, converted.max_tokens, {"variant": "keras", "precision": "fp32"}
    )
    return _original(brought, model, converted.max_tokens, dataset), converted.variants


def _set_aside(data: str, dataset: Dataset, wanted: Sequence[str]) -> tuple[Dataset, list[str]]:
    """Rows to calibrate with, which the gate must not see: the train split, else every fifth test row."""
    if not any("static" in name for name in wanted):
        return dataset, []
    if (Path(data) / "data.json").is_file() and "train" in (splits := open_data(Path(data)).splits):
        train = splits["train"].texts
        return dataset, [train[row] for row in sample_rows(len(train), CALIBRATION)]
    test = dataset.splits["test"]
    aside = range(0, len(test.texts), 5)[:CALIBRATION]
    kept = test.take(row for row in range(len(test.texts)) if row not in aside)
    if not kept.texts:
        raise InputError(f"{data}: too few rows to calibrate with some and to test with others; give more")
    calibration = [test.texts[row] for row in aside]
    return Dataset(dataset.name, dataset.label_names, {"test": kept}, dataset.source), calibration


def _smaller(variants: list[Variant], wanted: list[str] | None) -> list[Variant]:
    """A quantized variant that saves no bytes is told, and left out unless it was asked for."""
    sizes = {variant.name: variant.path.stat().st_size for variant in variants}
    kept = []
    for variant in variants:
        source = KNOWN[variant.name][2] if variant.name in KNOWN else None
        if source not in sizes or sizes[variant.name] < sizes[str(source)]:
            kept.append(variant)
            continue
        print(f"{variant.name}: no smaller than {source}", file=sys.stderr, flush=True)
        kept += [variant] if wanted else []
    return kept


def _adopted(brought: Brought, folder: Path) -> Adopted:
    largest, fallback = _fallback(brought.tokenizer)
    return adopt(brought.source, len(brought.labels), largest, folder, brought.max_tokens, fallback)


def _fallback(tokenizer: bytes) -> tuple[int, int]:
    """The largest token id, and how many tokens are read where nothing else says it."""
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_str(tokenizer.decode("utf-8"))
    ids = fast.get_vocab(with_added_tokens=True).values()
    return max(ids, default=0), (fast.truncation or {}).get("max_length") or MAX_TOKENS


def _open(adopted: Adopted, brought: Brought) -> Any:
    """The user's model as the reference, through its own engine."""
    variant = adopted.variant
    session = engines.module(variant.engine).open(variant.path, 1, variant=variant.entry())
    about = {"variant": variant.name, "precision": variant.precision}
    return _model(session, brought, adopted.max_tokens, about)


def _model(session: Any, brought: Brought, max_tokens: int, about: dict[str, Any]) -> Any:
    tokenizer = Tokenizer.from_bytes(brought.tokenizer, max_tokens)
    task = task_module(TASK)
    return task.open(session, tokenizer, brought.labels, _limits(max_tokens), about)


def _limits(max_tokens: int) -> dict[str, int]:
    return {"max_tokens": max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH}


def _original(brought: Brought, model: Any, max_tokens: int, dataset: Dataset) -> Original:
    """The reference, and what it is worth on the rows. Raises InputError where that is nothing."""
    test = dataset.splits["test"]
    rows = sample_rows(len(test.texts), Budget().samples)
    print(f"original: {brought.source.name}, {len(rows)} rows", file=sys.stderr, flush=True)
    logits = model.logits([test.texts[row] for row in rows])
    truth = [test.labels[row] for row in rows]
    report = classification_report(logits, truth)
    _require_better_than_chance(report, brought.labels)
    digest = _digest(brought.source)
    step = {
        "step": "adopt",
        "config": {"file": brought.source.name, "kind": brought.kind, "sha256": digest},
        "parent": digest,
        "digest": digest,
    }
    meta = {
        "data": {"name": None, "note": "the training data is not known", "test": dataset.source},
        "metrics": {"test": report},
        "seed": None,
        "lineage": [step],
    }
    files = {"tokenizer.json": brought.tokenizer, "config.json": brought.config}
    limits = _limits(max_tokens)
    return Original(TASK, brought.labels, limits, model, files, meta, digest)


def _digest(source: Path) -> str:
    from trainers.files import digest_files

    if source.is_file():
        return sha256_file(source)
    return digest_files(source, [file for file in source.rglob("*") if file.is_file()])


def _require_better_than_chance(report: dict[str, Any], labels: Sequence[str]) -> None:
    """Variants are held to the original, so that an original that was wired wrongly would pass the gate."""
    if report["accuracy"] > 1 / len(labels):
        return
    table = np.array(report["confusion"])
    order = [labels[int(row)] for row in table.argmax(axis=0)]
    permuted = sum(int(table[row, column]) for column, row in enumerate(table.argmax(axis=0)))
    hint = "check --tokenizer, --labels and --data"
    if sorted(order) == sorted(labels) and permuted > report["n"] * (report["accuracy"] + 1) / 2:
        hint = f"its outputs look like --labels {','.join(order)!r} ({permuted / report['n']:.0%} right)"
    share = f"{report['accuracy']:.0%} of {report['n']} rows"
    raise InputError(f"the model answers {share} rightly, no better than chance; {hint}")
