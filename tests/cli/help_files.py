"""The frozen help texts in tests/cli/help; `make help-files` updates them."""

import contextlib
import io
import os
from pathlib import Path
from unittest.mock import patch

from vitreous.cli.app import COMMANDS, run

FOLDER = Path(__file__).parent / "help"
HELP_FILES = {FOLDER / "vitreous.txt": ["--help"]} | {FOLDER / f"{name}.txt": [name, "--help"] for name in COMMANDS}


def help_text(arguments: list[str]) -> str:
    """What a command prints on a terminal 100 columns wide."""
    with patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run(arguments) == 0
    return printed.getvalue()


if __name__ == "__main__":
    for old in {*FOLDER.glob("*.txt")} - {*HELP_FILES}:
        old.unlink()
    for path, arguments in HELP_FILES.items():
        path.write_text(help_text(arguments), encoding="utf-8")
