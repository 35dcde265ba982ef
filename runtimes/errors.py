"""The errors that users see: one line that says what is wrong, where, and what to do next.

Each class carries the exit code of the command line (README, "Exit codes").
"""


class EdgewiseError(Exception):
    """Base of every error that is shown without a traceback."""

    exit_code = 1


class InputError(EdgewiseError):
    """Bad usage or bad input: a file, a recipe, a request."""

    exit_code = 2


class BundleError(InputError):
    """A bundle that is missing, cut short, altered, or of a newer schema."""


class EngineError(InputError):
    """An engine that is not installed, cannot open the variant, or fell back to another provider."""


class GateError(EdgewiseError):
    """A variant that is no longer the same model, by the recipe's budget."""

    exit_code = 3


class BudgetError(EdgewiseError):
    """A size or latency target that was not met."""

    exit_code = 4


class DeviceError(EdgewiseError):
    """A device that cannot be reached or went away."""

    exit_code = 5


def named(name: object, otherwise: type[EdgewiseError]) -> type[EdgewiseError]:
    """The class of that name, as another process told it; `otherwise` for a name that is none of these."""
    found = globals().get(str(name))
    return found if isinstance(found, type) and issubclass(found, EdgewiseError) else otherwise
