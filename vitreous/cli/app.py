"""The command `vitreous`: its commands, the options they share, and how errors are printed."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core
import typer.main

from vitreous import __version__
from vitreous.support.errors import REPORTED, InputError, unknown
from vitreous.support.text import printable, toml_value

if TYPE_CHECKING:
    from vitreous.classifier import Classifier

# Each command is a file in this folder with a function `command`. The text repeats the first line of that function's
# docstring, so that `vitreous --help` imports no command.
COMMANDS = {
    "demo": "Train a small model on handwritten digits, and leave a report to look at.",
    "check": "Look at a data set before training: leaks, copies, broken files, odd classes.",
    "train": "Train a model on your images.",
    "predict": "Classify images.",
    "features": "Write the representations of images to a .npy file.",
    "export": "Write a model in the format of any family, from the format of any other.",
    "inspect": "Show the inputs and outputs of every stage of a model, from image to class.",
    "explain": "Show where a model looks and what it has learned: the paper's figures for your images.",
    "list": "List the available models, recipes and data sources.",
}

IMAGES_HELP = "Image files, folders (searched recursively), patterns such as 'new/*.jpg', or - for stdin."
# Arguments and options that several commands share.
ModelArgument = Annotated[
    str, typer.Argument(help="A run folder, a weights file of any family, or a hub name such as hf:owner/name.")
]
ImagesArgument = Annotated[list[str], typer.Argument(help=IMAGES_HELP)]
FamilyOption = Annotated[
    str | None, typer.Option("--family", help="Checkpoint family, such as deit, if the keys match several.")
]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="PREFIX",
        help="Prefix of the model to load when the file holds several, such as state_dict/student.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config field the file doesn't record, such as num_heads=3; repeatable.",
    ),
]
MaxPixelsOption = Annotated[
    float | None,
    typer.Option("--max-pixels", min=1, metavar="N", help="Most pixels of an image, such as 2e8. Default: 67,108,864."),
]

BAD_INPUT = 2
STOPPED = 128 + signal.SIGINT  # the shell's exit code for a process that a signal ended
BROKEN_PIPE = 128 + 13  # SIGPIPE, which Windows does not define


class Terminated(KeyboardInterrupt):
    """SIGTERM, as of `kill`, `docker stop` or a scheduler; what an interrupt cleans up, it cleans up too."""

    number = signal.SIGTERM


class LazyCommands(typer.core.TyperGroup):
    """A group that imports a command only to run it or to show its help."""

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
            option.default = False  # with None, typer would import pydantic to convert it
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
        bool, typer.Option("--verbose", "-v", help="With --version: also describe this machine.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the Python traceback of an error.")] = False,
) -> None:
    """Vision Transformers to see through: train them, use them, look inside."""


def print_version(verbose: bool) -> None:
    """Prints the version and, if `verbose`, the machine and the package versions that results depend on."""
    print(f"vitreous {__version__}")
    if verbose:
        from vitreous.support.host import describe_host

        for name, value in describe_host().items():
            print(f"{name}: {value}")


def main() -> None:
    """Runs the command line on the process's arguments and ends the process."""
    # OpenMP reads this when torch is imported. By default waiting threads spin, which slows down whatever else runs
    # on the same cores: see docs/experiments.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, terminate)
    code = run(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # at exit, Python would print a traceback
    sys.exit(code)


def terminate(number: int, frame: object) -> NoReturn:
    """Handles SIGTERM, once: with another one the process ends at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


def run(arguments: Sequence[str]) -> int:
    """Runs one command.

    Bad input prints one line of cause and one of hint, if any, to stderr.

    Args:
        arguments: the command line after the program's name.

    Returns:
        The exit code: 0, 1 if `check` advises against training, 2 for bad input, 130 when interrupted, 143 when
        terminated, 141 when the output pipe was closed.
    """
    traceback, code = False, 0
    try:
        try:
            with typer.main.get_command(app).make_context("vitreous", list(arguments) or ["--help"]) as context:
                traceback = context.params["traceback"]
                context.command.invoke(context)
        except typer.Exit as end:
            code = end.exit_code
        sys.stdout.flush()  # here, where a closed pipe or a full disk can still be handled
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        if not hasattr(error, REPORTED):
            print("stopped", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)  # as a shell says that a signal ended a process
    except (typer.TyperException, ValueError, OSError) as error:
        if traceback:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            discard_output()
        if hasattr(error, REPORTED):
            return BAD_INPUT
        cause, hint = cause_and_hint(error)
        print(f"error: {printable(cause)}", file=sys.stderr)
        if hint:
            print(f"hint: {printable(hint)}", file=sys.stderr)
        return BAD_INPUT
    return code


def discard_output() -> None:
    """Sends what is left for stdout nowhere; Python would complain when it flushes the buffer on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def cause_and_hint(error: Exception) -> tuple[str, str]:
    """What is wrong and how to fix it; the hint is empty if none is known."""
    if isinstance(error, InputError):
        return error.cause, error.hint
    if isinstance(error, typer.TyperException):  # a misspelled option, a missing argument
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        context = getattr(error, "ctx", None)
        return message[:1].lower() + message[1:], f"see {context.command_path} --help" if context else ""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {str(error.filename)!r}: {error.strerror}", "check its name and permissions"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"cannot write the output: {error.strerror}", "free some space, or write it to another disk"
    return str(error) or type(error).__name__, ""


def load_with_options(
    model: str, family: str | None, part: str | None, settings: list[str] | None, device: str | None = None
) -> "Classifier":
    """Loads a classifier with the user's --family, --part and --set; on the best available device if None.

    Raises:
        InputError: there is no such model, it cannot be read, or a setting is not a config field.
    """
    from vitreous.classifier import load

    fields = {key: toml_value(value) for key, value in read_settings(settings or []).items()}
    if reserved := sorted({"source", "device", "family", "part", "mapped"} & fields.keys()):
        raise InputError(f"{reserved[0]!r} is not a config field", "use --set for fields such as num_heads")
    return load(model, device, family=family, part=part, **fields)


def open_classifier(
    model: str, family: str | None = None, part: str | None = None, settings: list[str] | None = None
) -> "Classifier":
    """Tunes the host and loads a classifier.

    Prints to stderr what was guessed about its file and which weights were left out; a vitreous file records
    everything, so nothing is printed for it. Raises InputError as `load_with_options`.
    """
    from vitreous.support.host import tune_host

    tune_host()
    classifier = load_with_options(model, family, part, settings)
    for remark in classifier.report.remarks() if classifier.report else ():
        print(printable(remark), file=sys.stderr)
    return classifier


def read_settings(pairs: list[str]) -> dict[str, str]:
    """Parses pairs such as `lr=1e-3`. Raises InputError for a pair without "="."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r} is not KEY=VALUE", "write it like --set lr=1e-3")
        settings[key.strip()] = value.strip()
    return settings
