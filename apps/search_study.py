"""The study of a search in Optuna: kept in a database, gone on with when called again, shared by machines."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runtimes.errors import EdgewiseError, InputError

# A machine of a shared study that was silent for so long is taken for dead.
_HEARTBEAT, _GRACE = 30, 180
_KILLS = 2  # so often one rung may die with its process before it is left out


def open_study(url: str, name: str, shared: bool, seed: int) -> Any:
    """The study `name` at an RDB URL of Optuna, made where it is not there. Raises InputError."""
    import optuna
    import sqlalchemy

    try:
        where = sqlalchemy.engine.make_url(url)
        shown = where.render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise InputError("--storage is no database URL; give one such as sqlite:///study.db") from None
    with quiet():
        try:
            beat: dict[str, Any] = (
                {"heartbeat_interval": _HEARTBEAT, "grace_period": _GRACE} if shared else {}
            )
            storage = optuna.storages.RDBStorage(url, **beat)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["maximize", "minimize", "minimize"],
                load_if_exists=True,
            )
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, ValueError, OSError) as error:
            line = (str(error).strip().splitlines() or [""])[0].replace(url, shown)[:200]
            raise InputError(
                f"--storage {shown}: cannot be used as a study ({type(error).__name__}: {line}); "
                "check the URL, its driver and its rights"
            ) from None
    study.sampler = sampler(study, seed)
    return study


def sampler(study: Any, seed: int) -> Any:
    """TPE for several objectives, seeded by what was tried: a search that goes on does not start over."""
    import optuna

    with quiet():
        tried = len(finished(study)) + len(killed(study)) // _KILLS
        return optuna.samplers.TPESampler(seed=seed + tried, n_startup_trials=8)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna and its migrations talk on standard error; so do its remarks on what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def finished(study: Any) -> list[Any]:
    """Trials that told a result or why there is none, each once."""
    return [
        one for one in study.get_trials(deepcopy=False)
        if "same_as" not in one.user_attrs and (one.values or "why" in one.user_attrs)
    ]  # fmt: skip


def killed(study: Any) -> list[Any]:
    """Trials whose process died under them."""
    return [
        one for one in study.get_trials(deepcopy=False)
        if one.state.name == "FAIL" and not {"why", "same_as"} & one.user_attrs.keys()
    ]  # fmt: skip


def bury_running(study: Any) -> None:
    """Trials that still run in a study that is ours alone: their process was killed."""
    import optuna

    for one in study.get_trials(deepcopy=False):
        if one.state == optuna.trial.TrialState.RUNNING:
            study.tell(one.number, state=optuna.trial.TrialState.FAIL)


def explore(
    study: Any,
    rungs: list[dict[str, Any]],
    trials: int,
    best_variant: Callable[[], str],
    attempt: Callable[[Any], tuple[float, float, float]],
    seed: int,
) -> None:
    """Run `attempt` until `trials` are finished: the rungs in order, then what the sampler proposes.

    A small space runs out of new proposals: the search ends after three in a row that were tried before.
    """
    repeated = 0
    while len(finished(study)) < trials and repeated < 3:
        rung = _next_rung(study, rungs)
        if rung is not None:
            study.enqueue_trial({"variant": best_variant(), **rung}, user_attrs={"rung": rung})
        before = len(finished(study))
        study.sampler = sampler(study, seed + repeated)
        with quiet():
            study.optimize(attempt, n_trials=1, catch=(EdgewiseError,))
        repeated = repeated + 1 if len(finished(study)) == before else 0


def _next_rung(study: Any, rungs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first rung that nobody took, or whose process died."""
    taken = [one.user_attrs.get("rung") for one in study.get_trials(deepcopy=False)]
    died = [one.user_attrs.get("rung") for one in killed(study)]
    told = [one.user_attrs.get("rung") for one in finished(study)]
    for rung in rungs:
        if rung not in taken or (rung in died and rung not in told and died.count(rung) < _KILLS):
            return rung
    return None
