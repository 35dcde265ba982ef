"""What a comparison of SFT, PPO, DPO and ORPO is: its settings, read from a TOML file's table [align]."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from apps.language.align.worlds import RowsConfig
from apps.recipe import from_table
from runtimes.errors import InputError
from trainers.finetune import TrainConfig
from trainers.preferences.dpo import DpoConfig
from trainers.preferences.orpo import OrpoConfig
from trainers.preferences.ppo import PpoConfig
from trainers.reward import RewardConfig
from trainers.sft import SftConfig

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
    `sampled_prompts` prompts, best against worst). `no_peft`: methods that are run once more with all
    weights, at `full_rate` times their learning rate.
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
