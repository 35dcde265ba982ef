"""The recipe: one TOML file that says a whole flow. Copy one and own it.

Any key can be overridden on the command line by its dotted name: `--train.epochs 2`.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from apps.preferring import PairsConfig, RewardBase, check_preferring
from compress.prune import PruneConfig, check_prune
from compress.prune_detector import DetectorPruneConfig, check_slim
from compress.qat import QatConfig, check_qat
from compress.vocabulary import VocabularyConfig
from device_bench.bench import BenchConfig, effective
from export.gate import GENERATOR_BUDGET, Budget, check_budget
from export.variant import DEFAULT, GENERATING, KNOWN, SHIPPED
from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.generation import TASK as GENERATION
from runtimes.load import TASKS
from trainers.adopt import ENCODER
from trainers.detector import DetectorConfig
from trainers.detector import check_config as check_detector
from trainers.distil import DistilConfig, check_distil
from trainers.finetune import TrainConfig, check_config
from trainers.generator import CONTEXT
from trainers.preferences.dpo import DpoConfig
from trainers.preferences.orpo import OrpoConfig
from trainers.preferences.ppo import PpoConfig
from trainers.prepare import PrepareConfig, check_prepare
from trainers.reader import TASK as READER
from trainers.series import SeriesConfig
from trainers.sft import SftConfig
from trainers.squad import QuestionsConfig, check_questions
from trainers.tuning import check_tuning

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class DataConfig:
    """A hub id, or a path to a CSV, JSONL or Parquet file; and its columns."""

    name: str
    text: str = "text"
    label: str = "label"


@dataclass(frozen=True)
class BaseConfig:
    """The base model: a hub id, or a folder that `from_pretrained` opens. `max_tokens`: the context of a text
    generator, prompt and answer together."""

    name: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_tokens: int = CONTEXT


@dataclass(frozen=True)
class InstructionsConfig:
    """What a text generator is tuned on, by hub id or path; see `trainers.instructions.load_instructions`."""

    name: str


@dataclass(frozen=True)
class ExportConfig:
    """Variants to make, and the lengths of TFLite's inputs (the longest must be train.max_tokens)."""

    variants: tuple[str, ...] = DEFAULT
    lengths: tuple[int, ...] = (16, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Recipe:
    """What `edgewise build` needs to know. `vocabulary`, `prune`, `distil` and `qat`, taken in this order,
    are left out where they are None.

    `prepare` is for labelled texts, `questions` for readers. A detector has `series`, `detector` and perhaps
    `student`, the smaller one that learns from it, and `slim`, which takes neurons out, instead of these. A
    sentence encoder is not trained: of `train` max_tokens alone counts, and the texts of `data` are what the
    gate compares on. Of a text generator `data` is running text, which rounding is fitted to and the gate
    measures on; it is tuned where there are `instructions`, by `sft`, and where there are `pairs` by one of
    `orpo`, `dpo` and `ppo` (whose `reward` learns from them).
    `seed`, where given, stands for the seeds of prepare, train, prune, distil, qat and bench; which articles
    are held out keeps its own.
    """

    name: str
    data: DataConfig
    task: str = "text-classification"
    seed: int | None = None
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    questions: QuestionsConfig = field(default_factory=QuestionsConfig)
    series: SeriesConfig = field(default_factory=SeriesConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    student: DetectorConfig | None = None
    slim: DetectorPruneConfig | None = None
    base: BaseConfig = field(default_factory=BaseConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    vocabulary: VocabularyConfig | None = None
    prune: PruneConfig | None = None
    distil: DistilConfig | None = None
    qat: QatConfig | None = None
    instructions: InstructionsConfig | None = None
    sft: SftConfig = field(default_factory=SftConfig)
    pairs: PairsConfig | None = None
    orpo: OrpoConfig | None = None
    dpo: DpoConfig | None = None
    reward: RewardBase = field(default_factory=RewardBase)
    ppo: PpoConfig | None = None
    export: ExportConfig = field(default_factory=ExportConfig)
    budget: Budget = field(default_factory=Budget)
    bench: BenchConfig = field(default_factory=BenchConfig)


def read_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read and check a recipe. Raises InputError that names the file and the key."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES >> 20} MB, so not a recipe")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a recipe such as apps/news/recipe.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    for key, value in (overrides or {}).items():
        _override(table, key, value)
    if table.get("task") == READER:
        _as_reader(table)
    if table.get("task") == GENERATION:
        _as_generator(table)
    recipe: Recipe = from_table(Recipe, table, str(path))
    for key, needed in (("sft", "instructions"), ("reward", "ppo")):
        if key in table and needed not in table:
            raise InputError(f"{path}: {key}: does nothing without [{needed}]; add it, or leave [{key}] out")
    _check(recipe, path)
    return recipe if recipe.seed is None else _seeded(recipe, recipe.seed)


def _as_reader(table: dict[str, Any]) -> None:
    """What readers are measured by, where a section does not say it."""
    table.setdefault("train", {})
    for section in ("train", "prune", "distil", "qat"):
        if isinstance(table.get(section), dict):
            table[section].setdefault("metric", "exact")


def _as_generator(table: dict[str, Any]) -> None:
    """What is made of generators and asked of them, where a section does not say it."""
    table.setdefault("export", {})
    if isinstance(table["export"], dict):
        table["export"].setdefault("variants", list(SHIPPED))
    budget = table.setdefault("budget", {})
    if isinstance(budget, dict):
        for key, value in asdict(GENERATOR_BUDGET).items():
            budget.setdefault(key, value)


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return replace(
        recipe,
        prepare=replace(recipe.prepare, seed=seed),
        train=replace(recipe.train, seed=seed),
        prune=recipe.prune and replace(recipe.prune, seed=seed),
        distil=recipe.distil and replace(recipe.distil, seed=seed),
        qat=recipe.qat and replace(recipe.qat, seed=seed),
        detector=replace(recipe.detector, seed=seed),
        student=recipe.student and replace(recipe.student, seed=seed),
        slim=recipe.slim and replace(recipe.slim, seed=seed),
        sft=replace(recipe.sft, seed=seed),
        orpo=recipe.orpo and replace(recipe.orpo, seed=seed),
        dpo=recipe.dpo and replace(recipe.dpo, seed=seed),
        reward=replace(recipe.reward, seed=seed),
        ppo=recipe.ppo and replace(recipe.ppo, seed=seed),
        bench=replace(recipe.bench, seed=seed),
    )


def _override(table: dict[str, Any], key: str, value: str) -> None:
    """Put a command-line value where its dotted name points; it is read as TOML, else as a string."""
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--{key}: {parent} is no table in the recipe")
    table[last] = _Word(value)


class _Word(str):
    """A value from the command line, not yet known to be text or TOML."""

    def read(self, kind: Any) -> Any:
        try:
            value = tomllib.loads(f"value = {self}")["value"]
        except tomllib.TOMLDecodeError:
            return str(self)
        return value if kind is not str or isinstance(value, str) else str(self)


def from_table(kind: type, table: Any, where: str) -> Any:
    """A frozen config dataclass from a TOML table; unknown keys and wrong types raise InputError."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: must be a table, not {str(table)!r}")
    known = {one.name: one for one in fields(kind)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise InputError(f"{where}: no key {key!r}; {hint}")
    types = get_type_hints(kind)
    for name, one in known.items():
        if name not in table and one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"{where}: key {name!r} is missing; add it")
    return kind(**{key: _value(types[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, _Word) and get_origin(kind) not in (Union, UnionType):
        value = value.read(kind)
    if get_origin(kind) in (Union, UnionType):
        options = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else _value(options[0], value, where)
    if is_dataclass(kind):
        return from_table(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{where}: must be one of {', '.join(map(str, get_args(kind)))}, not {value!r}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: must be a list, not {value!r}")
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if kind is float and type(value) is float and not math.isfinite(value):
        raise InputError(f"{where}: must be finite, not {value!r}")
    if type(value) is not kind:
        raise InputError(f"{where}: must be {kind.__name__}, not {value!r}")
    return value


def _check(recipe: Recipe, path: Path) -> None:
    """What the types alone do not say."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", recipe.name):
        raise InputError(f"{path}: name: {recipe.name!r} must be lower-case letters, digits, - and _")
    if recipe.task not in TASKS:
        raise InputError(f"{path}: task: {recipe.task!r} is not one of {', '.join(TASKS)}")
    variants, lengths = recipe.export.variants, recipe.export.lengths
    for name in variants:
        if name not in KNOWN:
            raise InputError(f"{path}: export: variants: {name!r} is not one of {', '.join(KNOWN)}")
    if not variants or len(set(variants)) != len(variants):
        raise InputError(f"{path}: export: variants: name at least one, and each once")
    if list(lengths) != sorted(set(lengths)) or not lengths or lengths[0] < 1:
        raise InputError(f"{path}: export: lengths: must ascend from at least 1, not {list(lengths)}")
    key, last = _last_training(recipe)
    if recipe.task not in (NUMBERS, GENERATION) and lengths[-1] != last.max_tokens:
        raise InputError(
            f"{path}: export: lengths: the longest ({lengths[-1]}) must be {key}.max_tokens "
            f"({last.max_tokens}), or the device would read less than the checkpoint"
        )
    try:
        _check_values(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_detector(recipe: Recipe) -> None:
    """What a detector's flow has not, and whether its two models ask for the same windows."""
    for key in ("vocabulary", "prune", "distil", "qat"):
        if getattr(recipe, key) is not None:
            raise InputError(
                f"{key}: a detector is made smaller by [student] and [slim]; leave the section out"
            )
    if any("mixed" in name or name.startswith("executorch") for name in recipe.export.variants):
        raise InputError("export.variants: a detector runs on ONNX Runtime and LiteRT, in no mixed variant")
    check_detector(recipe.detector)
    if recipe.slim is not None:
        check_slim(recipe.slim)
    if recipe.student is None:
        return
    check_detector(recipe.student)
    for key in ("window", "patch"):
        mine, other = getattr(recipe.student, key), getattr(recipe.detector, key)
        if mine != other:
            raise InputError(f"student.{key} = {mine}: must be the teacher's, {other}")


def _check_generator(recipe: Recipe) -> None:
    for key in ("vocabulary", "prune", "distil", "qat", "student", "slim"):
        if getattr(recipe, key) is not None:
            raise InputError(f"{key}: a text generator is tuned by [instructions] and [sft]; leave it out")
    for name in recipe.export.variants:
        if name not in GENERATING:
            raise InputError(f"export.variants: {name!r} is not one of a text generator's: {GENERATING}")
    if recipe.base.max_tokens < 4:
        raise InputError(f"base.max_tokens = {recipe.base.max_tokens}: must be 4 or more")
    check_tuning(recipe.sft, "sft")
    check_preferring(recipe)


def _check_task(recipe: Recipe) -> None:
    """What only one of the tasks has."""
    if recipe.task == NUMBERS:
        _check_detector(recipe)
        return
    if recipe.task == GENERATION:
        _check_generator(recipe)
        return
    for key in ("instructions", "pairs", "orpo", "dpo", "ppo"):
        if getattr(recipe, key) is not None:
            raise InputError(f"{key}: for text generators; {recipe.task} has [train]")
    if recipe.student is not None or recipe.slim is not None:
        raise InputError(f"student, slim: for detectors; {recipe.task} has [distil] and [prune]")
    if recipe.task in (ENCODER, READER) and any("mixed" in name for name in recipe.export.variants):
        raise InputError(f"export: variants: mixed ones are chosen by labels, which {recipe.task} has not")
    if recipe.task == ENCODER:
        for key in ("vocabulary", "prune", "distil", "qat"):
            if getattr(recipe, key) is not None:
                raise InputError(f"{key}: an encoder is exported as it is; leave the section out")
    if recipe.task == READER and recipe.vocabulary is not None:
        raise InputError("vocabulary: a reader meets words of any document; leave the section out")
    for key in ("train", "prune", "distil", "qat"):
        config = getattr(recipe, key)
        if config is not None and (config.metric == "exact") != (recipe.task == READER):
            raise InputError(f"{key}.metric = {config.metric!r}: no figure of task {recipe.task}")


def _last_training(recipe: Recipe) -> tuple[str, TrainConfig]:
    """The section whose `max_tokens` what is exported was trained with."""
    if recipe.qat is not None:
        return "qat", recipe.qat
    if recipe.distil is not None:
        return "distil", recipe.distil
    return ("prune", recipe.prune) if recipe.prune is not None else ("train", recipe.train)


def _check_values(recipe: Recipe) -> None:
    """What each step would refuse, said before the first one starts."""
    parts = (
        recipe.prepare, recipe.train, recipe.bench, recipe.prune, recipe.distil, recipe.qat, recipe.detector,
        recipe.student, recipe.slim, recipe.sft, recipe.orpo, recipe.dpo, recipe.ppo,
    )  # fmt: skip
    for seed in (recipe.seed or 0, *(part.seed for part in parts if part is not None)):
        if not 0 <= seed < 1 << 32:
            raise InputError(f"seed {seed}: must be from 0 to {(1 << 32) - 1}")
    check_prepare(recipe.prepare)
    check_questions(recipe.questions)
    check_config(recipe.train)
    _check_task(recipe)
    if recipe.vocabulary is not None and recipe.vocabulary.size < 1:
        raise InputError(f"vocabulary.size = {recipe.vocabulary.size}: must be 1 or more")
    if recipe.prune is not None:
        check_prune(recipe.prune)
    if recipe.distil is not None:
        check_distil(recipe.distil)
    if recipe.qat is not None:
        check_qat(recipe.qat)
    check_budget(recipe.budget)
    effective(recipe.bench)
