"""The model that is tuned: opened on a device, given an adapter, read for log-probabilities, merged
(torch)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from runtimes.errors import InputError
from trainers.batches import Batch
from trainers.generator import open_generator
from trainers.tuning import TuneConfig

# Positions whose logits exist at once: over a vocabulary of 49,152, 200 MB in fp32.
CHUNK = 1024
# transformers' SDPA under a name for which it makes no masks: those of `Batch` are the ones, and where there
# is none, the kernel is told to be causal and needs no memory for it.
_ATTENTION = "sdpa_with_own_masks"
AttentionInterface.register(_ATTENTION, sdpa_attention_forward)


class Policy:
    """`model`: the causal language model, with an adapter's layers in it where there is a `peft` wrapper.

    `head`: a method's own layer on the hidden states, trained along and not kept.
    """

    def __init__(self, folder: Path, config: TuneConfig):
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.model = open_generator(folder)
        self.model.config._attn_implementation = _ATTENTION
        self.model.config.use_cache = False
        _without_dropout(self.model)
        self.peft: Any = None
        self.head: Any = None
        torch.manual_seed(config.seed)
        if config.peft != "none":
            self.peft = _with_adapter(self.model, config)
        self.layers = [module for module in self.model.modules() if hasattr(module, "_disable_adapters")]
        # What is not trained is kept in the precision that it is computed in; what is trained stays fp32.
        low = torch.bfloat16 if self.precision == "bf16" else torch.float32
        for weight in self.model.parameters():
            weight.data = weight.data.to(self.device, torch.float32 if weight.requires_grad else low)
        for _name, buffer in self.model.named_buffers():
            buffer.data = buffer.data.to(self.device)
        if self.precision == "bf16":
            _leave_inputs(self.model)
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Weights that learn, by name."""
        found = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        if self.head is not None:
            found |= {f"head.{name}": weight for name, weight in self.head.named_parameters()}
        return found

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.precision)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Hidden states (n, width) where the batch's targets are told."""
        return hidden(self.model, batch)

    def logprobs(self, states: torch.Tensor, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
        """Log-probability (n,) fp32 of each target, where tokens are drawn at `temperature`."""
        return token_logprobs(self.model, states, batch.targets, temperature)

    @contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The model that the run started from: the adapter adds nothing.

        PEFT's own way also freezes and thaws each weight, which costs more than the pass does.
        """
        for layer in self.layers:
            layer._disable_adapters = True
        try:
            with torch.no_grad():
                yield
        finally:
            for layer in self.layers:
                layer._disable_adapters = False

    # figures

    def reset_peak(self) -> None:
        reset_peak(self.device)

    def peak_bytes(self) -> int:
        """The most since then."""
        return peak_bytes(self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"


def choose_device(asked: str) -> torch.device:
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise InputError("device = cuda: torch sees no GPU here; take auto or cpu")
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def choose_precision(asked: str, device: torch.device) -> str:
    if asked != "auto":
        return asked
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _with_adapter(model: Any, config: TuneConfig) -> Any:
    """PEFT's wrapper; the adapter's layers stand in `model` itself. LoRA: Hu et al. 2021; DoRA: Liu et al.
    2024; IA3: Liu et al. 2022."""
    import warnings

    import peft

    wanted: Any
    if config.peft == "ia3":
        wanted = peft.IA3Config(task_type="CAUSAL_LM")
    else:
        wanted = peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", task_type="CAUSAL_LM",
            use_dora=config.peft == "dora",
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # PEFT sets it right for GPT-2
        return peft.get_peft_model(model, wanted)


def _without_dropout(model: Any) -> None:
    """What is compared (with a reference, with an earlier self) must not differ by chance."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _leave_inputs(model: Any) -> None:
    """PEFT would cast each layer's input to fp32, which autocast then casts back."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def hidden(model: Any, batch: Batch) -> torch.Tensor:
    states = model.base_model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    )[0]
    return states.flatten(0, 1).index_select(0, batch.index)


def token_logprobs(
    model: Any, states: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Logits of all positions at once would be most of the memory: each chunk's are made again for its
    gradient."""
    head = model.get_output_embeddings()
    parts = []
    for at in range(0, len(targets), CHUNK):
        chunk = (states[at : at + CHUNK], targets[at : at + CHUNK], temperature)
        if torch.is_grad_enabled():
            parts.append(
                checkpoint(_chunk_logprobs, head, *chunk, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            parts.append(_chunk_logprobs(head, *chunk))
    return torch.cat(parts)


def _chunk_logprobs(
    head: Any, states: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    logits = head(states).float()
    return -F.cross_entropy(logits if temperature == 1 else logits / temperature, targets, reduction="none")


def per_answer(values: torch.Tensor, batch: Batch, mean: bool = False) -> torch.Tensor:
    """(n,) of tokens → (answers,): the sum over each answer's, or their mean."""
    sums = torch.zeros(batch.answers, dtype=values.dtype, device=values.device)
    sums = sums.index_add(0, batch.owner, values)
    if not mean:
        return sums
    return sums / torch.zeros_like(sums).index_add(0, batch.owner, torch.ones_like(values))


def reference_of(
    folder: Path, policy: Policy, second: bool, temperature: float = 1.0
) -> Callable[[Batch], torch.Tensor]:
    """batch → log-probability (n,) of each target by the model that the run starts from: the policy with its
    adapter off, or (`second`) the model of `folder` opened once more."""
    model = _frozen(folder, policy) if second else policy.model

    def reference(batch: Batch) -> torch.Tensor:
        with torch.no_grad() if second else policy.adapter_off():
            return token_logprobs(model, hidden(model, batch), batch.targets, temperature)

    return reference


def _frozen(folder: Path, policy: Policy) -> Any:
    model = open_generator(folder)
    model.config._attn_implementation = _ATTENTION
    return model.to(policy.device, torch.bfloat16 if policy.precision == "bf16" else torch.float32)


def reset_peak(device: torch.device) -> None:
    """What `peak_bytes` tells, it tells from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # on Linux
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """CUDA: the most that was allocated; CPU: the most that this process held (Linux; else 0)."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else _status("VmHWM:")


def held_bytes(device: torch.device) -> int:
    """CUDA: what is allocated now; CPU: what this process holds now (Linux; else 0)."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else _status("VmRSS:")


def _status(key: str) -> int:
    """A figure of this process's memory, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
