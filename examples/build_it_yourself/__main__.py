"""`python -m examples.build_it_yourself`: checks my_vit.py, or a copy of it, step by step."""

import argparse
import sys
import traceback
from pathlib import Path

from vitreous.support.errors import InputError

OPEN, BAD_USAGE, STOPPED = 1, 2, 130
FILE = Path(__file__).with_name("my_vit.py")


def parser() -> argparse.ArgumentParser:
    """What the program takes."""
    made = argparse.ArgumentParser(
        prog="python -m examples.build_it_yourself",
        description="Checks the eight steps of building a Vision Transformer, up to the first that is open.",
        epilog="Exit code: 0 if all steps are right, 1 if one is open, 2 for bad usage. Guide: docs/paper/build.md",
    )
    made.add_argument("file", type=Path, nargs="?", default=FILE, help="your file; by default my_vit.py, beside this")
    made.add_argument("--traceback", action="store_true", help="show where an error of your code comes from")
    made.add_argument("--epochs", type=epochs, metavar="N", help="how long step 8 trains; by default 20")
    return made


def epochs(text: str) -> int:
    """A number of epochs; argparse tells the ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: list[str]) -> int:
    """Checks the steps; returns the exit code."""
    given = parser().parse_args(arguments)
    from examples.build_it_yourself.check import check_steps  # torch, which --help does not wait for
    from examples.build_it_yourself.digits import EPOCHS
    from examples.build_it_yourself.learner import Fault, Learner
    from examples.build_it_yourself.steps import STEPS

    file = given.file.resolve()
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    done = 0
    try:
        for step, said in check_steps(Learner(shown), given.epochs or EPOCHS):
            print(f"{step}: {said}", flush=True)
            done += 1
    except InputError as error:
        print(f"error: {error.cause}\nhint: {error.hint}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except Fault as fault:
        step = STEPS[done]
        if fault.unwritten:
            print(f"{step}: {fault}")
        else:
            print(f"{step}: not right yet\n" + "\n".join(f"  {line}" for line in fault.text.splitlines()))
            if given.traceback and fault.__cause__ is not None:
                traceback.print_exception(fault.__cause__)
        do = "write" if fault.unwritten else "fix"
        print(f"next: step {step.number}: {do} {step.write} ({step.where}); read docs/paper/{step.page}")
        return OPEN
    print("All steps are right: this is a Vision Transformer, and you have built it.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
