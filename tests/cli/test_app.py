"""The command line: its help, its exit codes and its error messages."""

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.cli.help_files import FOLDER, HELP_FILES, help_text
from vitreous import __version__
from vitreous.cli import app
from vitreous.support.errors import InputError


@pytest.mark.parametrize("path", HELP_FILES, ids=lambda path: path.stem)
def test_help_is_frozen(path: Path):
    """After an intended change, run `make help-files`."""
    assert path.read_text(encoding="utf-8") == help_text(HELP_FILES[path])


def test_every_command_has_a_help_file_and_a_file():
    commands = {path.stem for path in Path(app.__file__).parent.glob("*.py")} - {"__init__", "app", "inputs"}
    assert commands == {*app.COMMANDS}
    assert {*FOLDER.glob("*.txt")} == {*HELP_FILES}


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_table_of_commands_repeats_their_docstrings(name: str):
    command = import_module(f"vitreous.cli.{name}").command
    assert app.COMMANDS[name] == (inspect.getdoc(command) or "").partition("\n")[0]


def test_the_version(capsys):
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"vitreous {__version__}\n"


def test_the_verbose_version_describes_this_machine(capsys):
    assert app.run(["--version", "-v"]) == 0
    printed = capsys.readouterr().out
    assert f"\npython: {sys.version.split()[0]}\n" in printed
    assert "\ntorch: " in printed


def test_without_a_command_the_help_is_shown():
    assert help_text([]) == help_text(["--help"])


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["lsit"], "there is no command 'lsit'", "did you mean 'list'?"),
        (
            ["list", "modles"],
            "invalid value for 'what': 'modles' is not one of 'models', 'recipes', 'sources'",
            "vitreous list --help",
        ),
        (["list"], "missing argument 'what'", "vitreous list --help"),
        (
            ["list", "models", "--jsn"],
            "no such option: --jsn (Possible options: --json)",
            "vitreous list --help",
        ),
        (["list", "recipes", "digits", "now"], "unexpected extra argument(s) (now)", "vitreous list --help"),
        (["--vresion"], "no such option: --vresion (Possible options: --version)", "vitreous --help"),
    ],
)
def test_a_mistyped_command_line_exits_2_and_suggests_a_fix(arguments, cause, hint, capsys):
    assert app.run(arguments) == 2
    out, error = capsys.readouterr()
    lines = error.splitlines()
    assert out == ""
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert cause in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `vitreous list sources` raise an error."""

    def sources():
        raise error

    monkeypatch.setattr("vitreous.cli.list.sources", sources)


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (InputError("it is empty", "put images into it"), "error: it is empty\nhint: put images into it\n"),
        (InputError("it is empty"), "error: it is empty\n"),
        (InputError("no \x1b[31mclass\n"), "error: no \\x1b[31mclass\\n\n"),
        (ValueError("width is 0"), "error: width is 0\n"),
        (
            FileNotFoundError(2, "No such file", "a.jpg"),
            "error: cannot use 'a.jpg': No such file\nhint: check its name and permissions\n",
        ),
        (
            PermissionError(13, "Permission denied", "runs"),
            "error: cannot use 'runs': Permission denied\nhint: check its name and permissions\n",
        ),
        (OSError("the disk is gone"), "error: the disk is gone\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_bad_input_exits_2_with_a_cause_and_a_hint(error, printed, monkeypatch, capsys):
    fail_with(error, monkeypatch)
    assert app.run(["list", "sources"]) == 2
    assert capsys.readouterr() == ("", printed)


def test_traceback_raises_the_error(monkeypatch):
    fail_with(InputError("the folder is empty"), monkeypatch)
    with pytest.raises(InputError, match="the folder is empty"):
        app.run(["--traceback", "list", "sources"])


def test_a_bug_is_not_hidden(monkeypatch):
    fail_with(RuntimeError("a bug"), monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        app.run(["list", "sources"])


def test_an_interruption_exits_130_without_a_traceback(monkeypatch, capsys):
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert app.run(["list", "sources"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_process_ends_with_the_exit_code(vitreous_process):
    done = vitreous_process("lsit")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no command 'lsit'\n")


def test_a_closed_pipe_exits_141_in_silence():
    """As in `vitreous list sources | true`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen(
        [sys.executable, "-m", "vitreous", "list", "sources"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    os.close(write_end)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 141
