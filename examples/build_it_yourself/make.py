"""Makes my_vit.py from the reading copy, so that the two cannot drift apart.

After an intended change, run `python -m examples.build_it_yourself.make --again` from the repository's root. Without
`--again`, a file with changes is not overwritten: it may be someone's work.
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
    """The source with every step done: the reading copy and the training loop."""
    loop = TRAINING_LOOP.read_text(encoding="utf-8")
    [function] = [node for node in ast.parse(loop).body if isinstance(node, ast.FunctionDef)]
    return f"{READING_COPY.read_text(encoding='utf-8')}\n\n{ast.get_source_segment(loop, function)}\n"


def exercise(source: str) -> str:
    """The source with every step open.

    Args:
        source: of the solution.

    Raises:
        ValueError: its functions and those of BLANKS differ.
    """
    tree = ast.parse(source)
    functions = dict(named_functions(tree))
    if functions.keys() != BLANKS.keys():
        differ = ", ".join(sorted(functions.keys() ^ BLANKS.keys()))
        raise ValueError(f"BLANKS and the reading copy do not have the same functions: {differ}")
    lines = source.splitlines()
    for name, function in reversed(functions.items()):  # from the end, so that earlier line numbers stay valid
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
    """The lines that replace a function's body."""
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
    """Writes my_vit.py and returns the exit code; 2 if that would overwrite changes."""
    parser = argparse.ArgumentParser(prog="python -m examples.build_it_yourself.make", description=__doc__)
    parser.add_argument("--again", action="store_true", help="overwrite the file even if it has changes")
    overwrite = parser.parse_args(arguments).again
    text = exercise(solution())
    if not overwrite and EXERCISE.exists() and EXERCISE.read_text(encoding="utf-8") != text:
        print(f"error: {EXERCISE.name} has changes that would be lost", file=sys.stderr)
        print("hint: copy it elsewhere, then add --again", file=sys.stderr)
        return 2
    write_text(EXERCISE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
