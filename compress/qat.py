"""Quantization-aware training: the model learns to answer with weights on a quantizer's grid.

Post-training quantization of the checkpoint that comes out finds the weights where it would put them, so the
exported file answers as the trained model did.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compress.grid import TINY, Grid, clipped, rounded, straight_through
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset
from trainers.distil import DistilConfig, check_distil, check_lesson, teach
from trainers.finetune import TrainConfig
from trainers.shape import family_of, layers_of, whole
from trainers.squad import QuestionSet

if TYPE_CHECKING:
    import torch

Activations = Literal["none", "dynamic"]


@dataclass(frozen=True)
class QatConfig(TrainConfig):
    """`bits` a weight, 2, 4 or 8, of every linear layer and embedding; 2 bits (-1, 0 or 1 times a scale) lie
    on the grid of 4, so that an int4 file holds them exactly, and its .zip is smaller. `block`: None for one
    scale an output channel and one a token, the grid of LiteRT's wi4 and wi8 and of ONNX Runtime's int8
    products; or as many neighbours as MatMulNBits gives a scale (16, 32, 64 or 128). `clip` draws outliers in
    before training, to where rounding errs least. `activations` dynamic also rounds what linear layers read
    to 8 bits, token by token, as the engines do where they compute in whole numbers. `temperature`, `alpha`
    and `hidden_weight` as in [distil]; `hidden_weight` needs a teacher of the same width."""

    bits: int = 4
    block: int | None = None
    activations: Activations = "dynamic"
    clip: bool = True
    temperature: float = 2.0
    alpha: float = 0.7
    hidden_weight: float = 0.0
    epochs: int = 2
    learning_rate: float = 2e-4


def check_qat(config: QatConfig) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    check_distil(_taught(config, 1), "qat")
    if config.bits not in (2, 4, 8):
        raise InputError(f"qat.bits = {config.bits}: must be 2, 4 or 8")
    if config.bits == 2 and config.block is not None:
        raise InputError("qat.bits = 2: one scale an output channel only; leave qat.block out")
    if config.block not in (None, 16, 32, 64, 128):
        raise InputError(f"qat.block = {config.block}: must be 16, 32, 64 or 128, or left out")
    if config.activations not in ("none", "dynamic"):
        raise InputError(f"qat.activations = {config.activations!r}: must be none or dynamic")


def quantization_aware(
    teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet, out: Path,
    config: QatConfig | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out`: `start` trained with rounded weights, taught by `teacher` (or by `start`).

    Its weights lie on the grid, in fp32; `from_pretrained` opens it, and it exports as any other. Killed and
    called again, it goes on from the last resume point. Raises InputError for an architecture, a value or
    data that cannot serve.
    """
    config = config or QatConfig()
    check_qat(config)
    check_lesson(config, teacher, start, dataset, "qat")
    import transformers

    from trainers.tasks import task_of

    task = task_of(start.task)
    transformers.set_seed(config.seed)
    model = task.open(start.path)
    family = family_of(model, start.path)
    taught = _taught(config, len(layers_of(model, family)))
    with quantized(model, config):
        figures = teach(
            model, whole(model, family), teacher, start, dataset, out, taught, more=["qat", asdict(config)]
        )
    step = {"step": "qat", "config": asdict(config), "parent": start.digest, "teacher": teacher.digest}
    lineage = [*start.meta["lineage"], step]
    made: Checkpoint = task.write(model, start.path, dataset, config, figures, lineage, out)
    return made


def _taught(config: QatConfig, layers: int) -> DistilConfig:
    shared = {one.name for one in fields(DistilConfig)} & {one.name for one in fields(QatConfig)}
    return DistilConfig(**{**{name: getattr(config, name) for name in shared}, "layers": layers})


def round_weights(model: Any, config: QatConfig) -> None:
    """Quantization after training, to compare with: the weights of `model` go to the nearest grid points."""
    import torch

    fold_token_types(model)
    with torch.no_grad():
        for module in quantizable(model):
            module.weight.copy_(rounded(_start(module.weight, config), Grid(config.bits, config.block)))


@contextmanager
def quantized(model: Any, config: QatConfig) -> Iterator[None]:
    """Within, `model` computes as the quantized file will, and can be trained; afterwards its weights are
    rounded for good and its activations are fp32 again."""
    import torch
    from torch.nn.utils import parametrize

    fold_token_types(model)
    modules = quantizable(model)
    for module in modules:
        with torch.no_grad():
            module.weight.copy_(_start(module.weight, config))
        rounding = straight_through(Grid(config.bits, config.block))
        parametrize.register_parametrization(module, "weight", rounding)
    linear = [one for one in modules if isinstance(one, torch.nn.Linear)]
    hooks = [one.register_forward_pre_hook(_round_inputs) for one in linear if config.activations != "none"]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in modules:
            parametrize.remove_parametrizations(module, "weight")


def _start(weight: "torch.Tensor", config: QatConfig) -> "torch.Tensor":
    return clipped(weight, Grid(config.bits, config.block)) if config.clip else weight


def quantizable(model: Any) -> list[Any]:
    """The modules whose weights the engines' quantizers round: linear layers and embeddings."""
    import torch

    return [one for one in model.modules() if isinstance(one, torch.nn.Linear | torch.nn.Embedding)]


def fold_token_types(model: Any) -> None:
    """Add the first token type to each word, so that it is rounded with the words; answers stay the same.

    The export to LiteRT folds it likewise, which would take rounded words off the grid. The first token type
    is zero afterwards and is not trained.
    """
    import torch

    for module in model.modules():
        types = getattr(module, "token_type_embeddings", None)
        if isinstance(types, torch.nn.Embedding):
            with torch.no_grad():
                module.word_embeddings.weight += types.weight[0]
                types.weight -= types.weight[0].clone()
            types.weight.requires_grad_(False)


def _round_inputs(_: Any, inputs: "tuple[torch.Tensor, ...]") -> "tuple[torch.Tensor, ...]":
    return (rounded_activations(inputs[0]), *inputs[1:])


def rounded_activations(values: "torch.Tensor") -> "torch.Tensor":
    """`values` (..., width) on 256 levels from the least to the greatest of each row, nought among them.

    The gradient passes straight through.
    """
    exact = values.detach().float()  # bf16 has too few digits for 256 levels
    low, high = exact.amin(-1, keepdim=True).clamp_max(0), exact.amax(-1, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(TINY) / 255
    zero = (-low / scale).round()
    near = ((exact / scale).round() + zero).clamp(0, 255) - zero
    return values + (near * scale - exact).to(values.dtype)
