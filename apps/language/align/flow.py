"""All of a comparison: what is not done yet is done, each run leaving one file of results."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.language.align.config import AlignConfig
from apps.language.align.plan import plan
from runtimes.errors import BudgetError, InputError
from trainers.files import read_json, write_json

if TYPE_CHECKING:
    from apps.language.align.pool import Pool


def align(
    configs: Sequence[AlignConfig], runs: Path, jobs: int = 1, until_seconds: float | None = None
) -> "Pool":
    """Do what is not done yet of the comparisons; each lies in its own folder `runs/<name>`.

    InputError where two have one name, or the data do not suffice. What failed or was dropped is in the pool
    that is given back and in each folder's pool.json, and the report says so.
    """
    from apps.language.align.pool import name_of, run_all
    from apps.language.align.steps import Place, is_done

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
    from apps.language.align.steps import is_done
    from apps.language.align.worlds import make_world, save_world
    from trainers.finetune import work_folder

    config, note = place.config, place.folder / "results" / "config.json"
    stated = json.loads(json.dumps(asdict(config)))
    if note.is_file() and read_json(note) != stated:
        for run in plan(config):
            if not is_done(place, run):
                made = place.checkpoint(run.name)
                for folder in (made, work_folder(made)):
                    shutil.rmtree(folder, ignore_errors=True)
        (place.folder / "world.json").unlink(missing_ok=True)
    if not (place.folder / "world.json").is_file():
        world = make_world(config.world, config.data, config.rows)
        save_world(world, place.folder / "world.json")
        write_json(place.folder / "results" / "world.json", {"source": world.source, "rows": world.counts()})
    write_json(note, stated)


def require(pool: "Pool") -> None:
    """InputError for the first run that failed, BudgetError where time was up first."""
    for name, why in pool.failed.items():
        raise InputError(f"{name}: {why}")
    for name, why in pool.dropped.items():
        raise BudgetError(f"{name}: {why}; call it again to go on ({len(pool.dropped)} runs are left)")
