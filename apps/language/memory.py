"""Peak memory of DPO, ORPO and PPO side by side: `python -m apps.language.memory --batch 2 --length 256`.

Each is trained for two steps with LoRA in a process of its own, on the same number of sequences of the same
length (half prompt, half answer; DPO and ORPO read two for each pair; PPO samples its answers). DPO stands in
the table twice: with a second model as its reference, and with the policy's adapter switched off. TRL's own
trainers, which the losses are held to, stand below. Memory is what the process took beyond itself with
everything imported (CPU), or what was allocated (GPU). Prints a Markdown table, or with --json what was
measured.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.language.one_line import ended
from runtimes.errors import InputError

METHODS = {
    "dpo-copy": "DPO, second model",
    "dpo": "DPO, adapter off",
    "orpo": "ORPO",
    "ppo": "PPO, adapter off",
    "trl-dpo": "DPO of TRL, adapter off",
    "trl-orpo": "ORPO of TRL",
}
# What is freed is given back at once; left to itself, malloc keeps some hundred MB, more or less by chance.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
STEPS = 2  # the optimizer's own memory is there from the second on


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.memory`: 0, or 2 for what cannot work."""
    parser = argparse.ArgumentParser(prog="python -m apps.language.memory", description=__doc__)
    parser.add_argument("--base", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--batch", type=int, default=2, help="pairs in a pass")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    return ended(lambda: _tell(told))


def _tell(told: argparse.Namespace) -> None:
    if told.child:
        method, checkpointing = told.child
        print(json.dumps(measure(told, method, checkpointing == "on")))
        return
    rows = [_in_a_child(told, method, held) for held in ("off", "on") for method in METHODS]
    print(json.dumps(rows) if told.json else table(rows))


def _in_a_child(told: argparse.Namespace, method: str, checkpointing: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "apps.language.memory", "--base", told.base, "--device", told.device]
    command += ["--batch", str(told.batch), "--length", str(told.length), "--child", method, checkpointing]
    environment = {**os.environ, **_MALLOC}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was told"]
        raise InputError(f"{METHODS[method]}: {lines[-1].removeprefix('error: ')}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{found['method']}, gradient checkpointing {checkpointing}: {found['peak_mb']} MB", file=sys.stderr
    )
    return found


def measure(told: argparse.Namespace, method: str, checkpointing: bool) -> dict[str, Any]:
    """Two steps of one method in this process; the most memory, in MB (10^6 bytes), beyond what it held with
    everything imported and no model opened."""
    import numpy as np
    import peft  # noqa: F401 - before the first look

    from trainers.policy import choose_device, held_bytes
    from trainers.preferences.dpo import DpoConfig
    from trainers.preferences.orpo import OrpoConfig
    from trainers.preferences.ppo import PpoConfig
    from trainers.tuned import start_from

    if method.startswith("trl"):
        return {"method": METHODS[method], **_trl(told, method, checkpointing)}
    kind: Any = {"orpo": OrpoConfig, "ppo": PpoConfig}.get(method, DpoConfig)
    config = kind(
        batch_size=told.batch, max_tokens=told.length, tokens=1 << 30, device=told.device,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    empty = held_bytes(choose_device(told.device))
    with TemporaryDirectory(prefix="edgewise-") as work:
        start = start_from(told.base, Path(work) / "out", config, method)
        vocabulary = start.policy.model.config.vocab_size
        # Any words do, but a sampled answer should not end early: its end is a token that is hardly said.
        start.renderer.end = vocabulary - 1
        ids = np.random.default_rng(0).integers(0, vocabulary - 1, (2 * told.batch, told.length))
        ids[:, -1] = start.renderer.end
        half = told.length // 2
        rows = [(row[:half].tolist(), row[half:].tolist()) for row in ids]
        trained = _ppo if method == "ppo" else _pairs
        figures = trained(start, config, rows, method, Path(work))
        weights = sum(one.numel() * one.element_size() for one in start.policy.model.parameters())
    return {
        "method": METHODS[method], "gradient_checkpointing": checkpointing, "batch": told.batch,
        "length": told.length, "weights_mb": round(weights / 1e6 * (2 if method == "dpo-copy" else 1), 1),
        "peak_mb": round(figures["peak_memory_mb"] - empty / 1e6, 1), "seconds": figures["seconds"],
        "device": figures["device"], "precision": figures["precision"],
    }  # fmt: skip


def _pairs(start: Any, config: Any, rows: list[Any], method: str, work: Path) -> dict[str, Any]:
    from trainers.batches import batch_of
    from trainers.policy import reference_of
    from trainers.preferences.dpo import dpo_loss
    from trainers.preferences.orpo import orpo_loss
    from trainers.tuning import Run

    losses = orpo_loss(0.1)
    if method != "orpo":
        losses = dpo_loss(reference_of(start.folder, start.policy, method == "dpo-copy"), 0.1)
    run = Run(start.policy, config, work / "work", {})
    for _ in range(STEPS):
        run.learn([batch_of(rows, start.pad_id, units=len(rows) // 2)], losses)
    return run.figures()


def _ppo(start: Any, config: Any, rows: list[Any], _: str, work: Path) -> dict[str, Any]:
    from dataclasses import replace

    from trainers.policy import reference_of
    from trainers.preferences.ppo import give_head, learn, play, remember
    from trainers.tuning import Run

    answer = len(rows[0][1])
    config = replace(config, batch_size=len(rows), rollouts=len(rows), max_new_tokens=answer, epochs=STEPS)
    give_head(start.policy)
    run = Run(start.policy, config, work / "work", {})
    run.memory = remember(config)
    reference = reference_of(start.folder, start.policy, second=False)
    prompts = [prompt for prompt, _ in rows]
    texts: list[Any] = ["" for _ in rows]
    made = play(prompts, texts, lambda _, answers: [*map(len, answers)], reference, start, run, config)
    learn(made, start, run, config)
    return run.figures()


def _trl(told: argparse.Namespace, method: str, checkpointing: bool) -> dict[str, Any]:
    """The same by TRL's own trainer: as many pairs, of a word that is one token, with the same adapter."""
    import time

    import datasets
    import peft
    import transformers
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from trainers.generator import open_generator
    from trainers.policy import choose_device, choose_precision, held_bytes, peak_bytes, reset_peak
    from trainers.sources import find

    device, folder = choose_device(told.device), find(told.base, "model").path
    precision, empty = choose_precision("auto", device), held_bytes(device)
    half, pairs = told.length // 2, told.batch * STEPS
    row = {"prompt": " the" * half, "chosen": " a" * (half - 1), "rejected": " of" * (half - 1)}
    adapter = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer: Any
    config: Any
    trainer, config = (DPOTrainer, DPOConfig) if method == "trl-dpo" else (ORPOTrainer, ORPOConfig)
    with TemporaryDirectory(prefix="edgewise-") as work:
        made = trainer(
            open_generator(folder), peft_config=adapter,
            train_dataset=datasets.Dataset.from_list([row] * pairs),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
            args=config(
                output_dir=work, per_device_train_batch_size=told.batch, max_steps=STEPS, report_to=[],
                max_length=told.length + 1, use_cpu=device.type == "cpu", bf16=precision == "bf16",
                gradient_checkpointing=checkpointing, save_strategy="no", disable_tqdm=True,
            ),
        )  # fmt: skip
        reset_peak(device)
        began = time.perf_counter()
        made.train()
        seconds, most = time.perf_counter() - began, peak_bytes(device)
    weights = sum(one.numel() * one.element_size() for one in made.model.parameters())
    return {
        "gradient_checkpointing": checkpointing, "batch": told.batch, "length": told.length,
        "weights_mb": round(weights / 1e6, 1), "peak_mb": round((most - empty) / 1e6, 1), "seconds": seconds,
        "device": made.args.device.type, "precision": precision,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; shares are of the peak of DPO with a second model, with the same checkpointing."""
    first = rows[0]
    lines = [
        f"{first['batch']} pairs ({2 * first['batch']} sequences) of {first['length']} tokens, LoRA, "
        f"{first['precision']}, {first['device']}", "",
        "| method | gradient checkpointing | weights MB | peak MB | share of the first | s a step |",
        "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    copies = [row for row in rows if row["method"] == METHODS["dpo-copy"]]
    most = {row["gradient_checkpointing"]: row["peak_mb"] for row in copies}
    for row in rows:
        held = row["gradient_checkpointing"]
        share, step = row["peak_mb"] / most[held], row["seconds"] / STEPS
        figures = f"{row['weights_mb']:.0f} | {row['peak_mb']:.0f} | {share:.2f} | {step:.1f}"
        lines.append(f"| {row['method']} | {'on' if held else 'off'} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
