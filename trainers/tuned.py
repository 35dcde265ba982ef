"""What a tuning run starts from, and the checkpoint that it ends in."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from runtimes.files import require_replaceable, writing
from trainers.adapter import FOLDER, check_adapter, merged, save_adapter
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
    """A run's beginning: the base's folder, the policy on it, its tokenizer. `context`: the most tokens that
    what is made reads; a checkpoint hands its own on."""

    folder: Path
    policy: "Policy"
    renderer: "Renderer"
    context: int
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

    source, context = find(str(base), "model"), config.max_tokens
    if (source.path / MANIFEST).is_file():
        opened = open_checkpoint(source.path)
        if opened.task != TASK:
            raise InputError(f"{base}: a checkpoint of task {opened.task}, not {TASK}; name a language model")
        context = max(context, opened.limits["max_tokens"])
    transformers.set_seed(config.seed)
    policy = Policy(source.path, config)
    check_max_tokens(policy.model, config.max_tokens)
    ends = end_tokens(policy.model)
    if not ends:
        raise InputError(f"{base}: no token ends an answer; set eos_token_id in generation_config.json")
    renderer = Renderer(source.path, ends[0], policy.model.config.bos_token_id)
    renderer.choose_end(ends)
    return Start(source.path, policy, renderer, context, *parents(source))


def run_of(
    start: Start, config: TuneConfig, out: Path, method: str, rows: Sequence[Any],
    watch: Watch | None = None, **more: Any,
) -> Run:  # fmt: skip
    """The run with its resume points beside `out`. `more` (JSON): what else tells this job from another."""
    job = {"method": method, "rows": rows_digest(list(rows)), "base": start.parent, **more}
    return Run(start.policy, config, work_folder(out), job, watch)


def write_tuned(
    start: Start, config: TuneConfig, out: Path, method: str, figures: dict[str, Any], data: dict[str, Any]
) -> Checkpoint:
    """The checkpoint `out`: merged weights in fp32, and `adapter/` where there is one. Drops the resume
    points.

    The adapter is merged into the base's own fp32 weights, whatever precision it was trained over.
    """
    step = {"step": method, "config": asdict(config), "parent": start.parent}
    meta = generator_meta(start.context, data, {"training": figures}, config.seed, [*start.lineage, step])
    with writing(out) as new:
        model = start.policy.model
        if start.policy.peft is not None:
            save_adapter(start.policy, start.folder, new / FOLDER, start.context)
            model = merged(start.folder, new / FOLDER)
        model.config.use_cache = True
        save_generator(model, start.folder, new, start.context)
        seal(new, meta)
    shutil.rmtree(work_folder(out), ignore_errors=True)
    return open_checkpoint(out)


def apply_adapter(base: Path | str, adapter: Path, out: Path) -> Checkpoint:
    """The checkpoint `out` of `base` with an adapter added into its weights. InputError for another base."""
    source = find(str(base), "model")
    about = check_adapter(adapter, source.path)
    parent, lineage = parents(source)
    told = {"kind": about["kind"], "adapter": about["digest"]}
    step = {"step": "adapter", "config": told, "parent": parent}
    with writing(out) as new:
        save_generator(merged(source.path, adapter), source.path, new, about["max_tokens"])
        data = {"name": "unknown: the adapter's"}
        seal(new, generator_meta(about["max_tokens"], data, {}, 0, [*lineage, step]))
    return open_checkpoint(out)
