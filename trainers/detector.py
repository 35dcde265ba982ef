"""Train a detector without labels: rebuild the window through a bottleneck, forecast what comes next.

The network starts as the best line can do (principal components, and a ridge regression for the forecast);
the Transformer beside it starts at nothing and learns what is left.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from runtimes.engines.patches import ARCHITECTURE, PatchConfig, PatchDetector
from runtimes.engines.torch import TorchSession
from runtimes.errors import InputError
from runtimes.files import writing
from runtimes.profile import scales
from runtimes.tasks.detect import MIN_WINDOWS, Detector
from runtimes.windows import bridge, normalise
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.files import digest_of
from trainers.injections import inject
from trainers.made import ordinary

TASK = "anomaly-detection"
MAX_CHANNELS, MAX_BATCH = 64, 256
MAX_WINDOWS = 30_000  # of all series together; more change little and cost memory
INJECTED = 400_000  # values of all series, the newest ones, that "auto" is decided on
MADE = 36  # series that are made
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # of the forecast's regression; windows that were held out choose


@dataclass(frozen=True)
class DetectorConfig:
    """`window` and `patch` in points; `bottleneck`: numbers through which a window must pass. `kind`:
    "subspace" is the line alone, "auto" keeps the better of both on anomalies injected into the last
    `validation` share of the training parts. `steps` counts batches. `masked`: in half of the windows of a
    batch the Transformer must do without this share of the patches, and expect them all the same. `made`:
    the share of the windows that come from made series of ordinary kinds, for a model that is to serve
    series unlike its data."""

    kind: Literal["transformer", "subspace", "auto"] = "transformer"
    window: int = 64
    patch: int = 8
    width: int = 32
    depth: int = 2
    heads: int = 4
    bottleneck: int = 8
    steps: int = 600
    batch: int = 128
    masked: float = 0.25
    made: float = 0.0
    learning_rate: float = 2e-3
    validation: float = 0.2
    seed: int = 0


def check_config(config: DetectorConfig, section: str = "detector") -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    for key in ("patch", "width", "heads", "bottleneck", "steps", "batch"):
        if getattr(config, key) < 1:
            raise InputError(f"{section}.{key} = {getattr(config, key)}: must be 1 or more")
    if config.patch < 2 or config.window % config.patch or not 16 <= config.window <= 1024:
        raise InputError(
            f"{section}.window = {config.window}: must be 16 to 1024 and a multiple of patch (2 or more)"
        )
    if config.width % config.heads or config.bottleneck >= config.window or config.depth < 0:
        raise InputError(
            f"{section}: width must be a multiple of heads, bottleneck below window, depth 0 or more"
        )
    if not 0 < config.learning_rate < 1 or not 0 < config.validation < 1 or config.seed < 0:
        raise InputError(f"{section}: learning_rate and validation must be within 0 and 1, seed not below 0")
    for key in ("masked", "made"):
        if not 0 <= getattr(config, key) < 1:
            raise InputError(f"{section}.{key} = {getattr(config, key):g}: must be from 0 to below 1")
    known = get_args(get_type_hints(type(config))["kind"])
    if config.kind not in known:
        raise InputError(f"{section}.kind = {config.kind!r}: must be one of {', '.join(known)}")


def train_detector(
    series: Sequence[Any], config: DetectorConfig | None = None, out: Path | str = ""
) -> Checkpoint:
    """A checkpoint at `out`, trained on the normal parts (the first `train_end` points) of `series`.

    Each has `values` (n, channels) with NaN where missing, `train_end`, `names` and `step` (seconds).
    Raises InputError where there is nothing to learn from.
    """
    config = config or DetectorConfig()
    check_config(config)
    parts, train, held = split(series, config)
    made, figures = _made(train, held, parts, config)
    step = {"step": "train_detector", "config": asdict(config), "parent": None}
    data = {"name": _name(series), "windows": len(train), "digest": _digest(parts)}
    return write_detector(made, data, figures, [step], config.seed, Path(out))


def _made(
    train: np.ndarray, held: np.ndarray, parts: list[np.ndarray], config: DetectorConfig
) -> tuple[PatchDetector, dict[str, Any]]:
    """The model that `config.kind` asks for, and what it measured."""
    if config.kind != "auto":
        model = fitted(train, held, config)
        return model, {"kind": config.kind, "validation": losses(model, held)}
    found = {kind: fitted(train, held, replace(config, kind=kind)) for kind in ("subspace", "transformer")}
    precision = {kind: on_injected(model, parts, config) for kind, model in found.items()}
    kind = max(precision, key=lambda name: precision[name])
    return found[kind], {"kind": kind, "injected_auc_pr": precision, "validation": losses(found[kind], held)}


def split(series: Sequence[Any], config: DetectorConfig) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The training parts (n, channels), windows to train on, and those of their last `validation` share."""
    parts = [np.asarray(one.values, float)[: one.train_end] for one in series]
    cut = [part[: int(len(part) * (1 - config.validation))] for part in parts]
    late = [part[len(early) :] for part, early in zip(parts, cut, strict=True)]
    train, held = gather(cut, config), gather(late, config, least=0)
    if config.made:
        others = ordinary(MADE, config.seed)
        early = [one[: int(len(one) * (1 - config.validation))] for one in others]
        last = [one[len(first) :] for one, first in zip(others, early, strict=True)]
        train = _beside(train, gather(early, config), config.made)
        held = _beside(held, gather(last, config), config.made)
    return parts, train, held


def _beside(windows: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    """Both, `others` with that share of all: whichever are too few come several times."""
    count = max(len(windows), len(others))
    more = others[np.resize(np.random.default_rng(0).permutation(len(others)), round(count * share))]
    if not len(windows):
        return more
    return np.concatenate([windows[np.resize(np.arange(len(windows)), round(count * (1 - share)))], more])


def gather(parts: Sequence[np.ndarray], config: DetectorConfig, least: int = 1) -> np.ndarray:
    """float32 (m, window + patch) of every channel that moves, normalised as the stream does it.

    Cut at even distances, so that no more than MAX_WINDOWS come of all. Raises InputError below `least`.
    """
    size = config.window + config.patch
    room = sum(max(len(part) - size + 1, 0) * part.shape[1] for part in parts)
    stride = max(1, -(-room // MAX_WINDOWS))
    found = []
    for part in parts:
        if len(part) < size or np.isnan(part).all(axis=0).any():
            continue
        centre, scale, constant = scales(part)
        scaled = ((part - centre) / scale)[:, ~constant]
        rows = np.lib.stride_tricks.sliding_window_view(scaled, size, axis=0)[::stride].reshape(-1, size)
        found.append(_normalised(bridge(rows[np.isnan(rows).mean(axis=1) < 0.25]), config.window))
    windows = np.concatenate(found) if found else np.empty((0, size), np.float32)
    if len(windows) < least:
        raise InputError(
            f"no window of {size} points in the training parts; give longer series or a smaller window"
        )
    return windows


def _normalised(rows: np.ndarray, window: int) -> np.ndarray:
    values, mean, spread = normalise(rows[:, :window])
    after = np.clip((rows[:, window:] - mean[:, None]) / spread[:, None], -10, 10)
    return np.concatenate([values, after], axis=1).astype(np.float32)


def new_model(config: DetectorConfig, windows: np.ndarray, held: np.ndarray | None = None) -> PatchDetector:
    """The line that fits `windows`; but for "subspace" a Transformer beside it that adds nothing yet."""
    torch.manual_seed(config.seed)
    depth = 0 if config.kind == "subspace" else config.depth
    shape = PatchConfig(
        config.window, config.patch, config.width, depth, config.heads, config.bottleneck,
        architectures=[ARCHITECTURE],
    )  # fmt: skip
    model = PatchDetector(shape)
    past = windows[:, : config.window].astype(float)
    _, axes = np.linalg.eigh(past.T @ past)
    axes = axes[:, ::-1][:, : config.bottleneck].T.copy()
    ahead = _ridge(windows, held if held is not None and len(held) else windows, config.window)
    with torch.no_grad():
        for layer, weight in ((model.into, axes), (model.again, axes.T), (model.on, ahead.T)):
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            layer.bias.zero_()
        if depth:
            for layer in (model.rebuild, model.further):
                layer.weight.zero_()
                layer.bias.zero_()
    return model


def _ridge(windows: np.ndarray, held: np.ndarray, window: int) -> np.ndarray:
    """The linear forecast (window, patch) of the ridge that is best on `held`."""
    past, after = windows[:, :window].astype(float), windows[:, window:].astype(float)
    square, product = past.T @ past / len(past), past.T @ after / len(past)
    found = [np.linalg.solve(square + ridge * np.eye(window), product) for ridge in RIDGES]
    errors = [np.square(held[:, window:] - held[:, :window] @ weight).mean() for weight in found]
    return np.asarray(found[int(np.argmin(errors))])


def fitted(
    train: np.ndarray,
    held: np.ndarray,
    config: DetectorConfig,
    teacher: Any = None,
    start: PatchDetector | None = None,
) -> PatchDetector:
    """A model trained on `train` windows; the weights that did best on `held` are kept.

    With a `teacher`, what it expects is the aim, with the truth beside it. With `start` that model goes on.
    """
    model = new_model(config, train, held) if start is None else start
    if not model.config.depth:
        return model.eval()
    rate = config.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=config.steps)
    random, covers = np.random.default_rng(config.seed), np.random.default_rng([config.seed, 1])
    best, kept = losses(model, held)["loss"], _weights(model)
    for step in range(config.steps):
        batch = torch.from_numpy(train[random.integers(0, len(train), config.batch)])
        model.train()
        loss = _loss(model, batch, config.window, teacher, covered(batch, config, covers))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, config.steps // 5) == 0:
            now = losses(model, held)["loss"]
            if now < best or not len(held):
                best, kept = now, _weights(model)
    model.load_state_dict(kept)
    return model.eval()


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def covered(batch: torch.Tensor, config: DetectorConfig, random: np.random.Generator) -> torch.Tensor:
    """The windows (m, window) of a batch, in half of them patches hidden: 0, which is the window's mean."""
    values, tokens = batch[:, : config.window], config.window // config.patch
    hidden = random.random((len(values), tokens)) < config.masked
    hidden[::2] = False
    return values * torch.from_numpy(np.repeat(~hidden, config.patch, axis=1))


def _loss(
    model: Any, batch: torch.Tensor, window: int, teacher: Any = None, read: torch.Tensor | None = None
) -> torch.Tensor:
    values = batch[:, :window]
    expected = model.expect(values, values if read is None else read)
    again, on = (
        F.smooth_l1_loss(expected[:, part], batch[:, part]) for part in (slice(window), slice(window, None))
    )
    loss = again + on
    if teacher is not None:
        with torch.no_grad():
            aim = teacher(values=batch[:, :window]).expected
        loss = 0.5 * loss + F.smooth_l1_loss(expected, aim)
    return loss


def losses(model: Any, held: np.ndarray) -> dict[str, float]:
    """Mean absolute error of rebuilt windows and of forecasts, normalised; the training's loss."""
    if not len(held):
        return {"loss": float("inf"), "rebuilt": float("nan"), "forecast": float("nan")}
    window = model.config.window
    rows = torch.from_numpy(held[:: max(1, len(held) // 4000)])
    model.eval()
    with torch.inference_mode():
        off = (model(values=rows[:, :window]).expected - rows).abs()
        loss = float(_loss(model, rows, window))
    return {"loss": loss, "rebuilt": float(off[:, :window].mean()), "forecast": float(off[:, window:].mean())}


def detector_of(model: PatchDetector, name: str = "trained") -> Detector:
    """The model as the runtime sees it, in this process and on one thread."""
    session = TorchSession(model.eval(), 1, ("expected",))
    return Detector(session, _limits(model), {"bundle": name, "task": TASK})


def _limits(model: PatchDetector) -> dict[str, int]:
    shape = {"window": model.config.window, "patch": model.config.patch}
    return {**shape, "max_channels": MAX_CHANNELS, "max_batch": MAX_BATCH}


def on_injected(model: PatchDetector, parts: Sequence[np.ndarray], config: DetectorConfig) -> float:
    """Mean AUC-PR over the series: fitted on the early part, judged on the late one with anomalies put in."""
    detector = detector_of(model)
    found = []
    for number, whole in enumerate(parts):
        part = whole[-max(INJECTED // (len(parts) * whole.shape[1]), 20 * config.window) :]
        early = int(len(part) * (1 - config.validation))
        if early < MIN_WINDOWS * config.window or np.isnan(part[:early]).all(axis=0).any():
            continue
        made, labels, done = inject(
            part, length=min(config.window, 64), seed=config.seed + number, skip=early
        )
        if not done:
            continue
        scores = detector.score(made, detector.fit(part[:early])).score[early:]
        found.append(average_precision_score(labels[early:], np.nan_to_num(scores)))
    return float(np.mean(found)) if found else 0.0


def write_detector(
    model: PatchDetector, data: dict[str, Any], metrics: dict[str, Any], lineage: list[dict[str, Any]],
    seed: int, out: Path,
) -> Checkpoint:  # fmt: skip
    """Weights and config.json, sealed. The folder appears whole or not at all."""
    with writing(out) as new:
        model.float().save_pretrained(new, safe_serialization=True)
        parameters = sum(weight.numel() for weight in model.parameters())
        meta = {
            "task": TASK,
            "labels": ["normal", "anomaly"],
            "limits": _limits(model),
            "data": data,
            "metrics": {**metrics, "parameters": parameters},
            "seed": seed,
            "lineage": lineage,
        }
        seal(new, meta)
    return open_checkpoint(out)


def _name(series: Sequence[Any]) -> str:
    names = [str(getattr(one, "name", number)) for number, one in enumerate(series)]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _digest(parts: Sequence[np.ndarray]) -> str:
    import hashlib

    return digest_of({str(n): hashlib.sha256(part.tobytes()).hexdigest() for n, part in enumerate(parts)})


def distil_detector(
    teacher: Checkpoint, series: Sequence[Any], out: Path | str, config: DetectorConfig | None = None
) -> Checkpoint:
    """A student of `config`'s size that learns what `teacher` expects; window and patch are the teacher's."""
    model = open_detector(teacher.path)
    shape = model.config
    config = replace(config or DetectorConfig(width=16, depth=1), window=shape.window, patch=shape.patch)
    check_config(config, "distil")
    parts, train, held = split(series, config)
    made = fitted(train, held, replace(config, kind="transformer"), teacher=model)
    step = {"step": "distil_detector", "config": asdict(config), "parent": teacher.digest}
    data = {"name": _name(series), "windows": len(train), "digest": _digest(parts)}
    figures = {"kind": "student", "validation": losses(made, held)}
    return write_detector(made, data, figures, [*teacher.meta["lineage"], step], config.seed, Path(out))


def open_detector(path: Path) -> PatchDetector:
    """The network of a checkpoint folder. Raises InputError where it is no detector's."""
    try:
        return PatchDetector.from_pretrained(path, local_files_only=True, use_safetensors=True).float().eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a detector's checkpoint ({reason[:200]})") from None
