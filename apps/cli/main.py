"""The `edgewise` command: thin verbs over plain functions. Imports stay inside the verbs."""

import re
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (README, "Exit codes")."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """The exit code. An error is one line on stderr; `--debug` anywhere shows the traceback."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    debug = "--debug" in options
    try:
        _prepare_streams()
        return _dispatch([*(word for word in options if word != "--debug"), *argv[len(options) :]])
    except KeyboardInterrupt:
        print("edgewise: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"edgewise: {_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ModuleNotFoundError | OSError) else getattr(error, "exit_code", 1)


def _prepare_streams() -> None:
    """Text that the terminal cannot show is escaped, not an error; a closed stream is told early."""
    from runtimes.errors import InputError

    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            raise InputError("standard output is closed; run with it open, or send it to a file")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(argv: list[str]) -> int:
    try:
        import typer
    except ImportError:
        from runtimes.errors import InputError

        raise InputError("the command line needs typer; pip install 'edgewise[apps]'") from None
    import apps.cli.app

    command = typer.main.get_command(apps.cli.app.app)
    code = command.main(argv or ["--help"], prog_name="edgewise", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _line(error: Exception) -> str:
    if hasattr(error, "format_message"):  # a usage error of the command line
        return f"{error.format_message()}; see `edgewise --help`"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed; see `edgewise doctor` for what this verb needs"
    text = re.sub(r"\.([^/\s]+?)\.tmp-\d+", r"\1", " ".join(str(error).split())) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        place = re.sub(r"\.([^/\s]+?)\.tmp-\d+", r"\1", f"{error.filename}: " if error.filename else "")
        return f"{place}{error.strerror}; check the path, its rights and the space left"
    if hasattr(error, "exit_code"):
        return text
    return f"{type(error).__name__}: {text}; run again with --debug for the traceback"
