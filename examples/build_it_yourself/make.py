"""Makes my_vit.py from the reading copy, so that the two cannot drift.

After a change on purpose, from the repository's root: `python -m examples.build_it_yourself.make --again`. Without
`--again`, a file that differs from what would be written is left alone: it may be someone's work.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

from examples.build_it_yourself.steps import BLANKS, MODULE, Blank
from vitreous.support.files import write_text

FOLDER = Path(__file__).parent
EXERCISE = FOLDER / "my_vit.py"
READING_COPY = FOLDER.parent / "paper_vit.py"
TRAINING_LOOP = FOLDER / "training_loop.py"
LATER = "  # noqa: F401 (your code needs it)"


def solution() -> str:
    """The source of a file in which every step is done: the reading copy and the training loop."""
    loop = TRAINING_LOOP.read_text(encoding="utf-8")
    [function] = [node for node in ast.parse(loop).body if isinstance(node, ast.FunctionDef)]
    return f"{READING_COPY.read_text(encoding='utf-8')}\n\n{ast.get_source_segment(loop, function)}\n"


def exercise(source: str) -> str:
    """The source of a file in which every step is open.

    Args:
        source: of the solution.

    Raises:
        ValueError: its functions are not those of BLANKS.
    """
    tree = ast.parse(source)
    functions = dict(named_functions(tree))
    if functions.keys() != BLANKS.keys():
        differ = ", ".join(sorted(functions.keys() ^ BLANKS.keys()))
        raise ValueError(f"BLANKS and the reading copy do not have the same functions: {differ}")
    lines = source.splitlines()
    for name, function in reversed(functions.items()):  # from the end, so that line numbers above still hold
        depth = function.body[0].col_offset
        lines[function.body[0].lineno - 1 : function.end_lineno] = body(name, BLANKS[name], depth)
    lines[: tree.body[0].end_lineno] = docstring(MODULE)
    unused = ("import math", "import torch")
    return "\n".join(f"{line}{LATER}" if line in unused else line for line in lines) + "\n"


def named_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a file, and the methods of its classes as "Class.method", in order."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef))


def body(name: str, blank: Blank, depth: int) -> list[str]:
    """The lines in the place of a function's body."""
    lines = docstring(blank.text)
    if name.endswith(".__init__"):
        lines.append("super().__init__()")
    lines += [f'raise NotImplementedError("step {number}: {name}")' for number in blank.stops]
    return indent("\n".join(lines), " " * depth).splitlines()


def docstring(text: str) -> list[str]:
    """The lines of a docstring."""
    if text.count("\n") == 1:
        return [f'"""{text.strip()}"""']
    return f'"""{text}"""'.splitlines()


def main(arguments: list[str]) -> int:
    """Writes my_vit.py; returns the exit code, 2 if there is one with changes."""
    parser = argparse.ArgumentParser(prog="python -m examples.build_it_yourself.make", description=__doc__)
    parser.add_argument("--again", action="store_true", help="write it even if that overwrites changes")
    again = parser.parse_args(arguments).again
    text = exercise(solution())
    if not again and EXERCISE.exists() and EXERCISE.read_text(encoding="utf-8") != text:
        print(f"error: {EXERCISE.name} has changes, which would be lost", file=sys.stderr)
        print("hint: copy it elsewhere, then give --again", file=sys.stderr)
        return 2
    write_text(EXERCISE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
