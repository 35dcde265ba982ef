"""The original: what every variant of a bundle is held to. A checkpoint, or a model that a user brings."""

import sys
from dataclasses import dataclass, field
from typing import Any

from export.template import compile_template, template_source
from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.generation import TASK as GENERATION
from runtimes.generation import generation_of
from runtimes.load import TOLD, load
from trainers.checkpoint import Checkpoint


@dataclass(frozen=True)
class Original:
    """`model` answers: `tokens(inputs)` and `outputs(inputs)` a row, `sureness` and `metric` of these.

    `files` go into the bundle as they are (`tokenizer.json`, `config.json`). `meta` has data, metrics, seed
    and lineage as in a checkpoint; `digest` is the sha256 of the model's file or files.
    """

    task: str
    labels: list[str]
    limits: dict[str, int]
    model: Any = field(repr=False)
    files: dict[str, bytes] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    digest: str


def of_checkpoint(checkpoint: Checkpoint) -> Original:
    """The checkpoint itself, in PyTorch eager fp32."""
    names = ("config.json",) if checkpoint.task == NUMBERS else ("tokenizer.json", "config.json")
    files = {name: (checkpoint.path / name).read_bytes() for name in names}
    keys = ("data", "metrics", "seed", "lineage", *TOLD)
    meta = {key: checkpoint.meta[key] for key in keys if key in checkpoint.meta}
    if checkpoint.task == GENERATION:
        meta["generation"] = generation_of(checkpoint.path) | _template(checkpoint, files)
    model = load(checkpoint.path, threads=None)
    return Original(
        checkpoint.task, checkpoint.labels, checkpoint.limits, model, files, meta, checkpoint.digest
    )


def _template(checkpoint: Checkpoint, files: dict[str, bytes]) -> dict[str, Any]:
    """The plain template, and the file that it is of; null, with the reason, where it takes no plain form."""
    source = template_source(checkpoint.path)
    if source is None:
        return {"template": None}
    files["chat_template.jinja"] = source[0].encode()
    try:
        return {"template": compile_template(*source)}
    except InputError as error:
        print(f"warning: packed without its template, so it does not chat. {error}", file=sys.stderr)
        return {"template": None, "template_left_out": str(error)}
