"""The verbs, in the order of the flow."""

import typer

from apps.cli.bench import bench
from apps.cli.build import build
from apps.cli.check import check
from apps.cli.compress import compress
from apps.cli.doctor import doctor
from apps.cli.export import export
from apps.cli.keys import keys
from apps.cli.report import report
from apps.cli.run import run
from apps.cli.serve import serve
from apps.cli.train import train

app = typer.Typer(
    name="edgewise",
    help="From training data to a phone, a Raspberry Pi or a browser tab, proved to be the same model.",
    epilog="Exit codes: 0 done, 2 bad usage or input, 3 gate failed, 4 budget missed, 5 device not "
    "reachable. --debug shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
# Keys of a recipe can follow as options (--train.epochs 2): the verb sorts them out.
_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=_OVERRIDES)(build)
app.command(context_settings=_OVERRIDES)(train)
app.command()(compress)
app.command()(export)
app.command()(check)
app.command()(run)
app.command()(serve)
app.command()(keys)
app.command()(bench)
app.command()(report)
app.command()(doctor)
