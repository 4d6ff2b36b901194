"""`python -m examples.build_it_yourself`: checks my_vit.py, or a copy of it, step by step."""

import argparse
import sys
import traceback
from pathlib import Path

from vitreous.support.errors import InputError

OPEN, BAD_USAGE, STOPPED = 1, 2, 130
FILE = Path(__file__).with_name("my_vit.py")


def make_parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.build_it_yourself",
        description="Checks the eight steps of building a Vision Transformer, up to the first open one.",
        epilog="Exits with 0 if all steps are right, 1 if one is open, 2 for bad usage. Guide: docs/paper/build.md",
    )
    parser.add_argument("file", type=Path, nargs="?", default=FILE, help="your file; my_vit.py by default")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error in your code")
    parser.add_argument("--epochs", type=epochs, metavar="N", help="epochs of training in step 8; 20 by default")
    return parser


def epochs(text: str) -> int:
    """A number of epochs; argparse reports the ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: list[str]) -> int:
    """Checks the steps and returns the exit code."""
    options = make_parser().parse_args(arguments)
    from examples.build_it_yourself.check import check_steps  # imports torch; --help should not wait for it
    from examples.build_it_yourself.digits import EPOCHS
    from examples.build_it_yourself.learner import Fault, Learner
    from examples.build_it_yourself.steps import STEPS

    file = options.file.resolve()
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    done = 0
    try:
        for step, result in check_steps(Learner(shown), options.epochs or EPOCHS):
            print(f"{step}: {result}", flush=True)
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
            if options.traceback and fault.__cause__ is not None:
                traceback.print_exception(fault.__cause__)
        verb = "write" if fault.unwritten else "fix"
        print(f"next: step {step.number}: {verb} {step.write} ({step.where}); read docs/paper/{step.page}")
        return OPEN
    print("All steps are right: you have built a Vision Transformer.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
