"""Lines 3 and 4: checkpoints that are cut or changed."""

from pathlib import Path

import torch
from safetensors.torch import load

from benchmarks.reliability.kills import is_loaded
from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.runs import OFTEN, SETTINGS, distance, make_photos, newest, size_of, state_distance
from vitreous.training.run import run_training

TENSORS = "state.safetensors"


def finished_run(lab: Lab) -> tuple[Path, Path, Path]:
    """The folder of a run, its newest checkpoint, and the one before."""
    photos = make_photos(lab.folder / "photos")
    out = run_training(photos, out=lab.folder / "run", settings={**SETTINGS, **OFTEN}, quiet=True).folder
    before, last = sorted((out / "checkpoints").iterdir())
    return out, last, before


def after_damage(out: Path, last: Path, before: Path, expected: object) -> tuple[str | None, int]:
    """What is wrong once the newest checkpoint is damaged, and the bytes of good state that are lost."""
    lines: list[str] = []
    found = newest(out, lines)
    if found is None:
        return "nothing loads", size_of(before)
    if found.path == last:
        return "the damage was not noticed", 0
    if state_distance(found.state, expected) != 0:
        return "the previous one loads, changed", size_of(before)
    return (None if len(lines) == 1 and last.name in lines[0] else f"no line about it: {lines}"), 0


def expected_state(out: Path, last: Path) -> object:
    """The state of the checkpoint before the newest one."""
    hidden = out / "hidden"
    last.rename(hidden)
    found = newest(out)
    hidden.rename(last)
    assert found is not None, "a run has two checkpoints"
    return found.state


def truncated(lab: Lab) -> Outcome:
    """The newest checkpoint's files, cut at many lengths."""
    out, last, before = finished_run(lab)
    expected, tally = expected_state(out, last), Tally()
    count = lab.count(200, 8)
    for file in sorted(last.iterdir()):
        content = file.read_bytes()
        lengths = {0, 1, len(content) - 1}
        while len(lengths) < min(count, len(content)):
            lengths.add(lab.draw.randrange(len(content)))
        for length in sorted(lengths):
            file.write_bytes(content[:length])
            problem, lost = after_damage(out, last, before, expected)
            tally.add(None if problem is None else f"{file.name} cut to {length} bytes: {problem}", lost)
        file.write_bytes(content)
    if newest(out) is None:
        tally.failures.append("the whole checkpoint is not found afterwards")
    broken, tries = cut_control(lab)
    return tally.outcome(f"one file of `torch.save`: {broken} of {tries} are lost", broken == tries)


def cut_control(lab: Lab) -> tuple[int, int]:
    """How many cuts of a file of torch.save leave nothing, and how many were made."""
    file, tries = lab.folder / "state.pt", lab.count(100, 8)
    torch.save({"weights": torch.rand(50_000)}, file)
    content, broken = file.read_bytes(), 0
    for _ in range(tries):
        file.write_bytes(content[: lab.draw.randrange(len(content))])
        broken += not is_loaded(file)
    return broken, tries


def flipped(lab: Lab) -> Outcome:
    """The newest checkpoint with a single bit flipped, anywhere in its files."""
    out, last, before = finished_run(lab)
    expected, tally = expected_state(out, last), Tally()
    files = sorted(last.iterdir())
    weights = [file.stat().st_size for file in files]
    for _ in range(lab.count(1000, 40)):
        # Half of them anywhere, half in any file, so that the small ones are met too.
        file = lab.draw.choices(files, weights if lab.draw.random() < 0.5 else None)[0]
        content = file.read_bytes()
        bit = lab.draw.randrange(8 * len(content))
        file.write_bytes(with_flip(content, bit))
        problem, lost = after_damage(out, last, before, expected)
        tally.add(None if problem is None else f"{file.name}, bit {bit}: {problem}", lost)
        file.write_bytes(content)
    silent, tries = flip_control(lab, last / TENSORS)
    control = f"safetensors alone: {silent} of {tries} load without an error, with other numbers"
    return tally.outcome(control, silent > 0)


def with_flip(content: bytes, bit: int) -> bytes:
    """A content with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_control(lab: Lab, source: Path) -> tuple[int, int]:
    """How many flips of a bare safetensors file load without an error and differ, and how many were made."""
    tries, content, silent = lab.count(1000, 40), source.read_bytes(), 0
    whole = load(content)
    for _ in range(tries):
        try:
            loaded = load(with_flip(content, lab.draw.randrange(8 * len(content))))
        except Exception:  # the flip was noticed, in whatever way
            continue
        silent += distance(whole, loaded) != 0
    return silent, tries
