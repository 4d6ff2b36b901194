"""Runs the comparison and prints it by family; `--write` updates docs/weights.md.

python -m benchmarks.coverage [--only PATTERN] [--write]
"""

import argparse
import re
import sys

import timm
import transformers

from benchmarks.coverage import document
from benchmarks.coverage.running import run
from benchmarks.coverage.timm_names import published_names
from benchmarks.coverage.transformers_classes import TOWERS


def main() -> int:
    """Returns 1 if something is silently different."""
    parser = argparse.ArgumentParser(prog="make coverage", description="Coverage of published ViTs, by family.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="names and classes that match this pattern")
    parser.add_argument("--write", action="store_true", help="update docs/weights.md")
    given = parser.parse_args()
    if given.only and given.write:
        parser.error("--write needs all names, not --only some")
    names = [name for name in published_names() if re.search(given.only, name)]
    classes = [name for name in TOWERS if re.search(given.only, name)]

    def progress(line: str) -> None:
        if sys.stderr.isatty():
            print(line, end="", file=sys.stderr, flush=True)

    timms, towers = run(names, classes, progress)
    progress("\r")
    parts = {
        "coverage": "\n".join(
            (
                document.total("timm", timm.__version__, "names", timms),
                document.total("transformers", transformers.__version__, "classes", towers),
            )
        ),
        "families": document.table(timms, towers),
        "refused": document.refusals([*timms, *towers]),
    }
    print(*parts.values(), document.remarks([*timms, *towers]), sep="\n\n")
    if given.write:
        document.write(parts)
    return int(any(outcome.result == "different" or outcome.back == "different" for outcome in (*timms, *towers)))


if __name__ == "__main__":
    sys.exit(main())
