"""The command `vitreous`: which commands there are, and how a mistake is told."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from vitreous import __version__
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import printable, toml_value

if TYPE_CHECKING:
    from vitreous.classifier import Classifier

# A command is a file of this folder with a function `command`. The text is the first line of that function's
# docstring, repeated here so that `vitreous --help` imports no command.
COMMANDS = {
    "demo": "Train a small model on handwritten digits, and leave a report to look at.",
    "train": "Train a model on your images.",
    "predict": "Name the classes of images.",
    "features": "Write the representations of images as rows of numbers.",
    "export": "Write a model in the format of any family, from the format of any other.",
    "inspect": "Show the inputs and outputs of every stage of a model, from image to class.",
    "explain": "Show where a model looks and what it has learned: the paper's figures for your images.",
    "list": "Show the models, recipes and data sources there are.",
}

# Options of every command that reads a model of any family.
FamilyOption = Annotated[
    str | None, typer.Option("--family", help="Whose file MODEL is, such as deit, where its keys fit several.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="What MODEL does not say of itself, such as num_heads=3; repeatable."
    ),
]

BAD_INPUT = 2
STOPPED = 128 + signal.SIGINT  # as a shell counts a process that a signal ended
NOBODY_READS = 128 + 13  # SIGPIPE, which Windows does not name


class LazyCommands(typer.core.TyperGroup):
    """A group whose commands are imported when they are called or asked for their help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cmd_name)(import_module(f"vitreous.cli.{cmd_name}").command)
        return typer.main.get_command(app)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False  # for None, typer would import pydantic to make it a bool
        return option

    def invoke(self, ctx: Any) -> Any:
        if ctx.params["version"]:
            return print_version(ctx.params["verbose"])
        return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With --version: also what this machine has.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the code an error comes from.")] = False,
) -> None:
    """Vision Transformers to see through: train them, use them, look inside."""


def print_version(verbose: bool) -> None:
    """Prints our version and, if asked for, what results depend on besides: the machine and the packages."""
    print(f"vitreous {__version__}")
    if verbose:
        from vitreous.support.host import describe_host

        for name, value in describe_host().items():
            print(f"{name}: {value}")


def main() -> None:
    """Runs the command line on the process's arguments and ends the process."""
    # OpenMP reads this when torch is imported. By default a thread that waits for another spins, which on cores
    # shared with other work keeps the other from running: see docs/experiments.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command.

    Bad input ends in one line of cause and, where there is one, one of hint on the standard error stream.

    Args:
        arguments: the command line after the program's name.

    Returns:
        The exit code: 0, 2 for bad input, 130 when interrupted, 141 when the reader of a pipe is gone.
    """
    traceback = False
    try:
        with typer.main.get_command(app).make_context("vitreous", list(arguments) or ["--help"]) as context:
            traceback = context.params["traceback"]
            context.command.invoke(context)
        sys.stdout.flush()  # here, where a reader that is gone can still be handled
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go; Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except (typer.TyperException, ValueError, OSError) as error:
        if traceback:
            raise
        tell(*cause_and_hint(error))
        return BAD_INPUT
    return 0


def cause_and_hint(error: Exception) -> tuple[str, str]:
    """What is wrong and what would fix it; the second is empty where nothing is known to."""
    if isinstance(error, InputError):
        return error.cause, error.hint
    if isinstance(error, typer.TyperException):  # a misspelt option, a missing argument
        message = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        return message[:1].lower() + message[1:], f"{context.command_path} --help" if context else ""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {str(error.filename)!r}: {error.strerror}", ""
    return str(error) or type(error).__name__, ""


def tell(cause: str, hint: str) -> None:
    """Prints an error for a person."""
    print(f"error: {printable(cause)}", file=sys.stderr)
    if hint:
        print(f"  try: {printable(hint)}", file=sys.stderr)


def load_as_told(model: str, family: str | None, settings: list[str] | None, device: str | None = None) -> "Classifier":
    """Loads a classifier with what a person told of its file.

    Args:
        model: where it is.
        family: whose file it is.
        settings: fields of the model's config, such as "num_heads=3".
        device: the best there is if None.

    Raises:
        InputError: there is no model there, or not one that can be read.
    """
    from vitreous.classifier import load

    told = {key: toml_value(value) for key, value in read_settings(settings or []).items()}
    if odd := sorted({"source", "device", "family"} & told.keys()):
        raise InputError(f"{odd[0]!r} is no field of a model", "--set takes fields such as num_heads")
    return load(model, device, family=family, **told)


def open_classifier(model: str, family: str | None = None, settings: list[str] | None = None) -> "Classifier":
    """Loads a classifier; what its file did not say, and what was not taken, is told on the standard error stream.

    Our own files say all themselves, and so nothing is told of them.

    Args:
        model: where it is.
        family: whose file it is.
        settings: fields of the model's config, such as "num_heads=3".

    Raises:
        InputError: there is no model there, or not one that can be read.
    """
    classifier = load_as_told(model, family, settings)
    for remark in classifier.report.remarks() if classifier.report else ():
        print(printable(remark), file=sys.stderr)
    return classifier


def read_settings(pairs: list[str]) -> dict[str, str]:
    """Reads `lr=1e-3` and the like. Raises InputError for what has no "="."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r} is not KEY=VALUE", "write it as in --set lr=1e-3")
        settings[key.strip()] = value.strip()
    return settings
