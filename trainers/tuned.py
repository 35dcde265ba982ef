"""What a tuning run starts from, and the checkpoint that it ends in."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from runtimes.files import require_replaceable, writing
from trainers.adapter import FOLDER, merged, save_adapter
from trainers.checkpoint import MANIFEST, Checkpoint, open_checkpoint, seal
from trainers.conversations import rows_digest
from trainers.finetune import parents, work_folder
from trainers.generator import TASK, end_tokens, generator_meta, save_generator
from trainers.sources import find
from trainers.tuning import Run, TuneConfig, Watch, check_tuning

if TYPE_CHECKING:
    from trainers.policy import Policy
    from trainers.rendering import Renderer


@dataclass
class Start:
    """A run's beginning: the base's folder, the policy on it, its tokenizer."""

    folder: Path
    policy: "Policy"
    renderer: "Renderer"
    parent: str
    lineage: list[dict[str, Any]]

    @property
    def pad_id(self) -> int:
        """Of tokens that are not looked at; any id serves."""
        return self.renderer.end


def start_from(base: Path | str, out: Path, config: TuneConfig, section: str) -> Start:
    """Open `base` (a hub id, a folder, a checkpoint) to be tuned. InputError for what cannot work."""
    check_tuning(config, section)
    require_replaceable(out)
    import transformers

    from trainers.model import check_max_tokens
    from trainers.policy import Policy
    from trainers.rendering import Renderer

    source = find(str(base), "model")
    if (source.path / MANIFEST).is_file():
        task = open_checkpoint(source.path).task
        if task != TASK:
            raise InputError(f"{base}: a checkpoint of task {task}, not {TASK}; name a language model")
    transformers.set_seed(config.seed)
    policy = Policy(source.path, config)
    check_max_tokens(policy.model, config.max_tokens)
    ends = end_tokens(policy.model)
    if not ends:
        raise InputError(f"{base}: no token ends an answer; set eos_token_id in generation_config.json")
    renderer = Renderer(source.path, ends[0])
    return Start(source.path, policy, renderer, *parents(source))


def run_of(
    start: Start, config: TuneConfig, out: Path, method: str, rows: Sequence[Any], watch: Watch | None = None
) -> Run:
    """The run with its resume points beside `out`."""
    job = {"method": method, "rows": rows_digest(list(rows)), "base": start.parent}
    return Run(start.policy, config, work_folder(out), job, watch)


def write_tuned(
    start: Start, config: TuneConfig, out: Path, method: str, figures: dict[str, Any], data: dict[str, Any]
) -> Checkpoint:
    """The checkpoint `out`: merged weights in fp32, and `adapter/` where there is one. Drops the resume
    points.

    The adapter is merged into the base's own fp32 weights, whatever precision it was trained over.
    """
    step = {"step": method, "config": asdict(config), "parent": start.parent}
    meta = generator_meta(config.max_tokens, data, {"training": figures}, config.seed, [*start.lineage, step])
    with writing(out) as new:
        model = start.policy.model
        if start.policy.peft is not None:
            save_adapter(start.policy, start.folder, new / FOLDER)
            model = merged(start.folder, new / FOLDER)
        model.config.use_cache = True
        save_generator(model, start.folder, new, config.max_tokens)
        seal(new, meta)
    shutil.rmtree(work_folder(out), ignore_errors=True)
    return open_checkpoint(out)
