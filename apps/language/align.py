"""The comparison of SFT, PPO, DPO and ORPO: one base, one set of data, one budget of tokens, several seeds.

`python -m apps.language.align A.toml [B.toml] --jobs 8 --until-seconds 430`; `edgewise train A.toml` is the
same with one job. Every run leaves one file of results, from which apps/language/align_page.py makes the report
at any time. See docs/language/align.md.
"""

import argparse
import json
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apps.language.worlds import RowsConfig
from apps.recipe import from_table
from runtimes.errors import EdgewiseError, InputError
from trainers.files import read_json, write_json
from trainers.finetune import TrainConfig
from trainers.preferences.dpo import DpoConfig
from trainers.preferences.orpo import OrpoConfig
from trainers.preferences.ppo import PpoConfig
from trainers.reward import RewardConfig
from trainers.sft import SftConfig

if TYPE_CHECKING:
    from apps.language.align_pool import Pool

METHODS = ("sft", "ppo", "dpo", "orpo")
# What each method's strength is called in its own config: how much it is held to the reference, or (ORPO)
# how much the odds ratio weighs.
STRENGTH = {"ppo": "kl", "dpo": "beta", "orpo": "beta"}


@dataclass(frozen=True)
class EvaluationConfig:
    """`temperature` 1 draws from the model itself, so that KL and answers speak of the same distribution.
    `tie`: scores nearer than this are a tie. `points`: how often held-out reward is looked at in training."""

    temperature: float = 1.0
    batch: int = 256
    tie: float = 0.1
    points: int = 3
    perplexity_tokens: int = 65_536
    seed: int = 1000


@dataclass(frozen=True)
class Sensitivity:
    """What one method is tried with, one change at a time, on the first seed."""

    learning_rate: tuple[float, ...] = ()
    strength: tuple[float, ...] = ()
    batch_size: tuple[int, ...] = ()


@dataclass(frozen=True)
class AlignConfig:
    """`tokens` is T: the shared start is T of SFT; SFT, PPO and DPO go on from it for T, ORPO, which needs no
    start, takes 2T from the base. `label` is shown in every table (quick settings say so there).

    `pairs`: people's own, or answers sampled from the start and ranked by the reward (`samples` for each of
    `sampled_prompts` prompts, best against worst). `no_peft`: methods that are run once more with all weights,
    at `full_rate` times their learning rate.
    """

    name: str
    world: Literal["sentiment", "helpful"]
    tokens: int
    label: str = ""
    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    data: str = "reviews/womens-clothing"
    perplexity: str = "Salesforce/wikitext"
    pairs: Literal["human", "sampled"] = "sampled"
    samples: int = 4
    sampled_prompts: int = 1200
    answer_tokens: int = 48
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = METHODS
    no_peft: tuple[str, ...] = ()
    full_rate: float = 0.1
    keep_weights: bool = False
    rows: RowsConfig = field(default_factory=RowsConfig)
    classifier: TrainConfig = field(default_factory=TrainConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    orpo: OrpoConfig = field(default_factory=OrpoConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sensitivity_sft: Sensitivity = field(default_factory=Sensitivity)
    sensitivity_ppo: Sensitivity = field(default_factory=Sensitivity)
    sensitivity_dpo: Sensitivity = field(default_factory=Sensitivity)
    sensitivity_orpo: Sensitivity = field(default_factory=Sensitivity)


@dataclass(frozen=True)
class Run:
    """One thing to do. `kind` says which function of apps/language/align_steps.py does it; `after` names the
    runs that must have ended well; `rank` orders what could start: the table of all seeds comes first."""

    name: str
    kind: Literal["reward", "judge", "linear", "start", "pairs", "model"]
    rank: int
    after: tuple[str, ...] = ()
    method: str = ""
    seed: int = 0
    changed: tuple[tuple[str, Any], ...] = ()


def is_align(path: Path) -> bool:
    """Whether a TOML file is of this flow: it has a table [align]."""
    try:
        return "align" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def read_align(path: Path, overrides: Mapping[str, str] | None = None) -> AlignConfig:
    """The config in a TOML file's table [align]. InputError that names the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file such as apps/language/quick.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    if not isinstance(table.get("align"), dict) or len(table) > 1:
        raise InputError(f"{path}: must hold the table [align] and its sub-tables, and nothing else")
    for key, value in (overrides or {}).items():
        _set(table["align"], key.removeprefix("align."), value)
    config: AlignConfig = from_table(AlignConfig, table["align"], f"{path}: align")
    check_align(config, str(path))
    return config


def _set(table: dict[str, Any], key: str, value: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value


def check_align(config: AlignConfig, where: str) -> None:
    """InputError for what cannot work."""
    for key in ("tokens", "samples", "sampled_prompts", "answer_tokens"):
        if getattr(config, key) < 1:
            raise InputError(f"{where}: {key} = {getattr(config, key)}: must be 1 or more")
    if not config.seeds or len(set(config.seeds)) != len(config.seeds) or min(config.seeds) < 0:
        raise InputError(f"{where}: seeds: name at least one, each once, none below 0")
    for key in ("methods", "no_peft"):
        unknown = sorted(set(getattr(config, key)) - set(METHODS))
        if unknown:
            raise InputError(f"{where}: {key}: {unknown[0]!r} is not one of {', '.join(METHODS)}")
    if "sft" not in config.methods:
        raise InputError(f"{where}: methods: sft is missing, which the others are compared with")
    if config.samples < 2 and config.pairs == "sampled":
        raise InputError(f"{where}: samples = 1: a pair needs two answers; take 2 or more")
    if config.pairs == "human" and config.world == "sentiment":
        raise InputError(f"{where}: pairs: there are no people's pairs of reviews; take 'sampled'")
    if config.evaluation.temperature <= 0 or config.evaluation.tie < 0 or config.full_rate <= 0:
        raise InputError(f"{where}: temperature and full_rate must be above 0, tie not below 0")


# the plan


def plan(config: AlignConfig) -> list[Run]:
    """All runs, in the order in which they would start if all could."""
    first = config.seeds[0]
    runs = [Run(name, name, 0) for name in ("reward", "judge", "linear")]  # type: ignore[arg-type]
    for seed in config.seeds:
        runs.append(Run(f"start-seed{seed}", "start", 0, seed=seed))
        if config.pairs == "sampled":
            runs.append(Run(f"pairs-seed{seed}", "pairs", 1, (f"start-seed{seed}", "reward"), seed=seed))
    for method in sorted(config.methods, key=("ppo", "orpo", "dpo", "sft").index):  # the longest first
        runs += [_model(config, method, seed, rank=2) for seed in config.seeds]
    runs.append(_model(config, "base", first, rank=2))
    runs += [_model(config, "start", seed, rank=3) for seed in config.seeds]
    runs += [_model(config, method, first, 3, {"peft": "none"}) for method in config.no_peft]
    for method in config.methods:
        runs += [_model(config, method, first, 4, change) for change in _changes(config, method)]
    return runs


def _model(
    config: AlignConfig, method: str, seed: int, rank: int, change: Mapping[str, Any] | None = None
) -> Run:
    needed = ["reward", "judge", "linear", f"start-seed{seed}"]
    if method in ("dpo", "orpo") and config.pairs == "sampled":
        needed.append(f"pairs-seed{seed}")
    told = "".join(f"-{key}-{value}" for key, value in (change or {}).items())
    return Run(f"{method}{told}-seed{seed}", "model", rank, tuple(needed), method, seed,
               tuple((change or {}).items()))  # fmt: skip


def _changes(config: AlignConfig, method: str) -> list[dict[str, Any]]:
    tried: Sensitivity = getattr(config, f"sensitivity_{method}")
    own = getattr(config, method)
    found: list[dict[str, Any]] = []
    for key, name in (("learning_rate",) * 2, ("strength", STRENGTH.get(method)), ("batch_size",) * 2):
        if name is not None:
            found += [{name: value} for value in getattr(tried, key) if value != getattr(own, name)]
    return found


def method_config(config: AlignConfig, run: Run) -> Any:
    """The trainer's config of a run: its own table, with the budget, the seed and what this run changes."""
    own = getattr(config, run.method)
    change = dict(run.changed)
    if change.get("peft") == "none":
        change["learning_rate"] = own.learning_rate * config.full_rate
    tokens = config.tokens * (2 if run.method == "orpo" else 1)
    return replace(own, tokens=tokens, seed=run.seed, **change)


# all of it


def align(
    configs: Sequence[AlignConfig], runs: Path, jobs: int = 1, until_seconds: float | None = None
) -> "Pool":
    """Do what is not done yet of the comparisons; each lies in its own folder `runs/<name>`.

    InputError where two have one name, or the data do not suffice. What failed or was dropped is in the pool
    that is given back and in each folder's pool.json, and the report says so.
    """
    from apps.language.align_pool import name_of, run_all
    from apps.language.align_steps import Place, is_done

    names = [config.name for config in configs]
    if len(set(names)) != len(names):
        raise InputError(f"{max(names, key=names.count)}: two comparisons have this name; rename one")
    places = [Place(runs / config.name, config) for config in configs]
    for place in places:
        _prepare(place)
    keys = [(place, run) for place in places for run in plan(place.config)]
    finished = {name_of(key) for key in keys if is_done(*key)}
    pool = run_all(keys, jobs, until_seconds, finished)
    for place in places:
        told = {"failed": pool.failed, "dropped": pool.dropped}
        mine = {k: _mine(v, place.config.name) for k, v in told.items()}
        write_json(place.folder / "results" / "pool.json", {"jobs": jobs, **mine})
    return pool


def _mine(told: dict[str, str], name: str) -> dict[str, str]:
    return {key.partition("/")[2]: why for key, why in told.items() if key.partition("/")[0] == name}


def _prepare(place: Any) -> None:
    """World and settings on disk; what was begun by other settings goes."""
    from apps.language.align_steps import is_done
    from apps.language.worlds import make_world, save_world

    config, note = place.config, place.folder / "results" / "config.json"
    stated = json.loads(json.dumps(asdict(config)))
    if note.is_file() and read_json(note) != stated:
        for run in plan(config):
            if not is_done(place, run):
                shutil.rmtree(place.checkpoint(run.name), ignore_errors=True)
        (place.folder / "world.json").unlink(missing_ok=True)
    if not (place.folder / "world.json").is_file():
        world = make_world(config.world, config.data, config.rows)
        save_world(world, place.folder / "world.json")
        write_json(place.folder / "results" / "world.json", {"source": world.source, "rows": world.counts()})
    write_json(note, stated)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.align`: 0 where all is done, 2 for what cannot work or failed, 4 where time
    was up first."""
    parser = argparse.ArgumentParser(prog="python -m apps.language.align", description=__doc__)
    parser.add_argument("config", type=Path, nargs="+", help="TOML files with a table [align]")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1, help="how many runs side by side")
    parser.add_argument("--until-seconds", type=float, help="stop then, and say what was left out")
    told, rest = parser.parse_known_args(arguments)
    try:
        if any(not key.startswith("--") for key in rest[::2]) or len(rest) % 2:
            raise InputError(f"{' '.join(rest)}: not understood; a key is changed by --tokens 1000")
        changes = {key[2:]: value for key, value in zip(rest[::2], rest[1::2], strict=True)}
        configs = [read_align(path, changes) for path in told.config]
        pool = align(configs, told.runs, max(1, told.jobs), told.until_seconds)
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return finish(pool)


def finish(pool: "Pool") -> int:
    """Say what did not come about; gives the exit code."""
    for name, why in {**pool.failed, **pool.dropped}.items():
        print(f"{name}: {why}", file=sys.stderr)
    print(f"{len(pool.done)} done, {len(pool.failed)} failed, {len(pool.dropped)} left out")
    return 2 if pool.failed else 4 if pool.dropped else 0


if __name__ == "__main__":
    # Workers must meet the classes under their own name, not under __main__.
    from apps.language import align as this

    sys.exit(this.main())
