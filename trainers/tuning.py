"""What all ways of tuning a language model share: their settings, and the loop that spends a token budget.

An optimizer step's rows and random numbers follow from the seed and the step's number alone, so that a run
that was killed and goes on gives the same weights as one that was not.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from runtimes.errors import InputError
from runtimes.files import writing

if TYPE_CHECKING:
    import torch

    from trainers.batches import Batch
    from trainers.policy import Policy

    # (policy, batch) → (loss summed over the batch's units, figures summed over them)
    Losses = Callable[[Policy, Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]

POINTS = 50  # of a learning curve
# Of a resume point: AdamW's state of each weight, and what a run counts.
STATE = ("step", "exp_avg", "exp_avg_sq")
COUNTED = ("steps", "tokens", "taken", "curve", "memory", "seconds", "since")


@dataclass(frozen=True)
class Watch:
    """Looks at the policy before the first step and then `points` times at even shares of the budget. What
    `look` gives goes into metrics.training.watched; neither its time nor (on a GPU) its memory counts."""

    points: int
    look: "Callable[[Policy], dict[str, Any]]"


@dataclass(frozen=True)
class TuneConfig:
    """`tokens`: how many pass through the policy in training, after which it stops. `batch_size` counts what
    one pass takes (rows, or pairs, or packed rows of `max_tokens`); the loss is the mean over
    `gradient_accumulation` of them. `rank` and `alpha` are LoRA's and DoRA's. `warmup` is a share of
    `tokens`, after which the learning rate falls to 0 in a line. `precision` auto is bf16 on a GPU, else
    fp32; weights that are trained are fp32 always. `save_every` counts optimizer steps between resume
    points."""

    peft: Literal["lora", "dora", "ia3", "none"] = "lora"
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 2e-4
    warmup: float = 0.1
    batch_size: int = 8
    gradient_accumulation: int = 1
    tokens: int = 1_000_000
    max_tokens: int = 512
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    save_every: int = 100
    seed: int = 0


def check_tuning(config: TuneConfig, section: str) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    for key in ("rank", "alpha", "batch_size", "gradient_accumulation", "tokens", "save_every"):
        if getattr(config, key) < 1:
            raise InputError(f"{section}.{key} = {getattr(config, key)}: must be 1 or more")
    if config.max_tokens < 4:
        raise InputError(f"{section}.max_tokens = {config.max_tokens}: must be 4 or more")
    if not 0 < config.learning_rate < 1:
        raise InputError(f"{section}.learning_rate = {config.learning_rate}: must be above 0 and below 1")
    if not 0 <= config.warmup < 1 or config.seed < 0:
        raise InputError(f"{section}: warmup must be 0 or more and below 1; seed not below 0")
    for key, kind in get_type_hints(type(config)).items():
        known = get_args(kind)
        if known and getattr(config, key) not in known:
            raise InputError(f"{section}.{key} = {getattr(config, key)!r}: must be one of {', '.join(known)}")


def rate(share: float, warmup: float) -> float:
    """The learning rate's factor after this share of the budget: up in a line, then down in a line to 0."""
    if share < warmup:
        return max(share, 1e-3) / warmup
    return max(0.0, (1 - share) / (1 - warmup))


class Run:
    """A run in progress: optimizer, tokens spent, learning curve, resume points.

    `memory` holds what a method carries from step to step (JSON); it is kept in the resume points too.
    """

    def __init__(
        self, policy: "Policy", config: TuneConfig, work: Path, job: Any, watch: Watch | None = None
    ):
        import torch

        self.policy, self.config, self.work, self.watch = policy, config, work, watch
        self.job = json.loads(json.dumps({**job, "config": asdict(config)}))
        self.names, self.weights = zip(*policy.trained().items(), strict=True)
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0,
            fused=policy.device.type == "cuda",
        )  # fmt: skip
        self.steps, self.tokens, self.taken, self.seconds, self.saved = 0, 0, 0, 0.0, 0
        self.curve: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        self.sums: dict[str, Any] = {}
        self.since = 0  # units in `sums`
        self.norms: Any = 0.0  # all gradients' together: shows one that is not finite, without waiting
        self._restore()
        self.started, self.peak = time.perf_counter(), 0
        policy.reset_peak()
        self.bar = _bar(config.tokens, self.tokens)
        self._look()

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.tokens >= self.config.tokens

    def learn(self, batches: "Sequence[Batch]", losses: "Losses") -> None:
        """One optimizer step over all `batches`, as if they were one."""
        import torch

        torch.manual_seed(self.config.seed * 1_000_003 + self.steps)
        units = sum(batch.units for batch in batches)
        for batch in batches:
            with self.policy.autocast():
                loss, figures = losses(self.policy, batch.to(self.policy.device))
            (loss / units).backward()
            for name, value in {"loss": loss, **figures}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()
        self.norms = self.norms + torch.nn.utils.clip_grad_norm_(self.weights, 1.0).double()
        for group in self.optimizer.param_groups:
            share = self.tokens / self.config.tokens
            group["lr"] = self.config.learning_rate * rate(share, self.config.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(units, sum(batch.tokens for batch in batches), len(batches))

    def _count(self, units: int, tokens: int, batches: int) -> None:
        before = self.tokens * POINTS // self.config.tokens
        self.steps, self.since = self.steps + 1, self.since + units
        self.tokens, self.taken = self.tokens + tokens, self.taken + batches
        self.bar.update(tokens)
        if self.tokens * POINTS // self.config.tokens > before or self.over:
            self._log()
        self._look()

    def _log(self) -> None:
        """A point of the curve: means since the last one. The only place where the device is waited for."""
        figures = {name: round(value / self.since, 6) for name, value in self._sums().items()}
        self.curve.append(
            {"step": self.steps, "tokens": self.tokens, **figures, **self.memory.get("told", {})}
        )
        self.sums, self.since = {}, 0
        if self.bar.disable:
            print(f"step {self.steps} tokens {self.tokens} loss {figures['loss']:.4f}", file=sys.stderr)
        else:
            self.bar.set_postfix_str(f"loss {figures['loss']:.4f}")

    def _sums(self) -> dict[str, float]:
        sums = {name: float(value) for name, value in self.sums.items()}
        if not all(math.isfinite(value) for value in sums.values()):
            raise InputError(
                f"the loss is not finite by step {self.steps}; lower learning_rate = "
                f"{self.config.learning_rate} (no checkpoint was written)"
            )
        if not math.isfinite(float(self.norms)):
            raise InputError(
                f"a gradient is not finite by step {self.steps}; lower learning_rate = "
                f"{self.config.learning_rate} (no checkpoint was written)"
            )
        return sums

    def _look(self) -> None:
        """What is watched, where the next of its points has come."""
        seen = self.memory.get("watched", [])
        share = min(self.tokens / self.config.tokens, 1.0)
        if self.watch is None or share * self.watch.points < len(seen):
            return
        self.policy.wait()
        began, self.peak = time.perf_counter(), max(self.peak, self.policy.peak_bytes())
        found = self.watch.look(self.policy)
        self.memory["watched"] = [*seen, {"step": self.steps, "tokens": self.tokens, **found}]
        self.policy.wait()
        self.policy.reset_peak()
        self.started += time.perf_counter() - began

    def figures(self) -> dict[str, Any]:
        """What the checkpoint tells of the run. MB are 10^6 bytes: the most since the first step that was
        allocated on the GPU, or that the process held."""
        self.bar.close()
        return {
            "curve": self.curve,
            "watched": self.memory.get("watched", []),
            "tokens": self.tokens,
            "steps": self.steps,
            "seconds": round(self._seconds(), 2),
            "peak_memory_mb": round(max(self.peak, self.policy.peak_bytes()) / 1e6, 1),
            "trained_parameters": sum(weight.numel() for weight in self.weights),
            "precision": self.policy.precision,
            "device": self.policy.device_name(),
        }

    def _seconds(self) -> float:
        self.policy.wait()
        return self.seconds + time.perf_counter() - self.started

    # resume points

    def keep(self) -> None:
        """A resume point, where `save_every` steps were made since the last one and more are to come."""
        if self.steps - self.saved < self.config.save_every or self.over:
            return
        from safetensors.torch import save_file

        state = {
            "job": self.job, "steps": self.steps, "tokens": self.tokens, "taken": self.taken,
            "curve": self.curve, "memory": self.memory, "seconds": self._seconds(), "since": self.since,
            "sums": self._sums(),
        }  # fmt: skip
        with writing(self.work / "point") as new:
            save_file(self._tensors(), new / "state.safetensors")
            (new / "data.json").write_text(json.dumps(state), encoding="utf-8")
        self.saved = self.steps

    def _tensors(self) -> "dict[str, torch.Tensor]":
        """Weights and the optimizer's state, by name. Plain tensors: nothing is unpickled."""
        found = {}
        for name, weight in zip(self.names, self.weights, strict=True):
            found[f"weight.{name}"] = weight.detach().contiguous()
            for key, value in self.optimizer.state[weight].items():
                found[f"{key}.{name}"] = value.contiguous()
        return found

    def _point(self) -> "tuple[dict[str, Any], dict[str, torch.Tensor]] | None":
        """The resume point of the same job; None where there is none, or one that does not read back."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        point = self.work / "point"
        try:
            state = json.loads((point / "data.json").read_text(encoding="utf-8"))
            if state["job"] != self.job or {*COUNTED, "sums"} - set(state):
                return None
            tensors = load_file(point / "state.safetensors", device=str(self.policy.device))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None
        for name, weight in zip(self.names, self.weights, strict=True):
            whole = all(f"{key}.{name}" in tensors for key in ("weight", *STATE))
            if not whole or tensors[f"weight.{name}"].shape != weight.shape:
                return None
        return state, tensors

    def _restore(self) -> None:
        """Go on from the resume point of the same job; another job's or a broken one is removed."""
        import torch

        found = self._point()
        if found is None:
            shutil.rmtree(self.work, ignore_errors=True)
            return
        state, tensors = found
        with torch.no_grad():
            for name, weight in zip(self.names, self.weights, strict=True):
                weight.copy_(tensors[f"weight.{name}"])
                kept = {k: tensors[f"{k}.{name}"] for k in STATE}
                kept["step"] = kept["step"] if self.policy.device.type == "cuda" else kept["step"].cpu()
                self.optimizer.state[weight] = kept
        for key in COUNTED:
            setattr(self, key, state[key])
        self.saved = self.steps
        device = self.policy.device
        self.sums = {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in state["sums"].items()}


def _bar(total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="token", unit_scale=True, desc="tune", disable=None)
