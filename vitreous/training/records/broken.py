"""The check of all images before training: broken ones are listed and left out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vitreous.data.precheck import Broken, Estimate, Found, How, checked_count, choose_check, find_broken
from vitreous.data.sources.chosen import without
from vitreous.data.sources.splits import ImageData, Split
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed
from vitreous.training.planning.plan import Plan
from vitreous.training.records.display import duration
from vitreous.training.records.folder import BAD_FILES, BadFiles
from vitreous.training.records.log import Log

WORK = {"all": "decoding all images", "headers": "reading image headers", "sample": "reading some image headers"}
SHORT = 10.0  # seconds that a check may take without an announcement


def leave_out_broken(plan: Plan, log: Log) -> tuple[Plan, dict[str, list[int]]]:
    """Checks the images of a run; returns the plan without the broken ones, and their indices by split.

    The plan's recipe has the check that was made.

    Raises:
        InputError: all training images of a class are broken, or all images of a split, or too many. They are listed
            in the folder by then.
    """
    group, started = log.group, time.perf_counter()
    how: How = group.from_first(choose(plan, log) if group.leads else "none")
    count = checked_count(plan.data, how)
    broken, remarked = look(plan.data, how, count, log)
    for split in plan.data.splits:
        log.bad_files.record(split, [(split.names[index], reason) for index, reason in broken.get(split.name, [])])
    if log.bad_files.count:
        group.lead(log.bad_files.write)
    require_readable(plan.data, broken, log.bad_files)
    for split in plan.data.splits:
        log.bad_files.check(split.name)
    for line in result_lines(how, count, time.perf_counter() - started, log.bad_files, remarked):
        log.display.print(line)
    recipe = plan.recipe.with_settings({"check_images": how})
    dropped = {name: [index for index, _ in images] for name, images in broken.items()}
    kept = without(plan.data, dropped)
    for before, after in zip(plan.data.splits, kept.splits, strict=True):
        for line in lost_classes(plan.data.class_names, before, after.labels):
            log.display.print(line)
    return replace(plan, data=kept, recipe=recipe), dropped


def look(data: ImageData, how: How, count: int, log: Log) -> Found:
    """What all ranks find, each in its part of the images."""
    group = log.group

    def progress(done: int) -> None:
        log.display.working(WORK[how], min(done * group.size, count), count)

    found = find_broken(data, how, progress, group.place.share, group.place.cores) if count else Found({}, 0)
    parts = group.gather(found)
    broken: Broken = {}
    for part, _ in parts:
        for name, images in part.items():
            broken.setdefault(name, []).extend((index, reason) for index, reason in images)
    return Found({name: sorted(images) for name, images in broken.items()}, sum(remarked for _, remarked in parts))


def lost_classes(class_names: Sequence[str], split: Split, labels: np.ndarray) -> Iterator[str]:
    """A warning if some classes of a split have no readable image: none of them is among these labels."""
    lost = [repr(class_names[number]) for number in np.setdiff1d(split.labels, labels).tolist()]
    if lost:
        yield f"warning: no {split.name} image of {listed(lost)} could be read"


def choose(plan: Plan, log: Log) -> How:
    """The recipe's check, or the one that suits the data; says so if it is slow, or not all images are decoded."""
    asked = plan.recipe.data.check_images
    if asked != "auto":
        return asked
    estimate: Estimate = choose_check(plan.data)
    if estimate.how not in ("all", "none"):
        log.display.print(
            f"decoding all images would take about {duration(estimate.decoding_seconds)} (check_images=all); "
            f"{WORK[estimate.how]} instead, about {duration(estimate.seconds)}"
        )
    elif estimate.seconds > SHORT:
        log.display.print(f"{WORK[estimate.how]} once, about {duration(estimate.seconds)} (check_images=none skips it)")
    return estimate.how


def require_readable(data: ImageData, broken: Broken, bad_files: BadFiles) -> None:
    """Raises InputError for a split without readable images, and for classes of which none can be trained on."""
    see = f"see {bad_files.folder.path / BAD_FILES}"
    for split in data.splits:
        reasons = broken.get(split.name, [])
        if len(reasons) == len(split):
            cause = f"none of the {len(split)} {split.name} images can be read; the first {reasons[0][1]}"
            raise InputError(cause, f"check the files; {see}")
    indices = [index for index, _ in broken.get("train", [])]
    classes = len(data.class_names)
    before = np.bincount(data.train.labels, minlength=classes)
    bad = np.bincount(data.train.labels[indices], minlength=classes)
    empty = [data.class_names[number] for number in np.flatnonzero((bad == before) & (before > 0)).tolist()]
    if empty:
        of = listed([repr(name) for name in empty])
        raise InputError(
            f"all training images of {of} are broken", f"replace them, or remove the class's folder; {see}"
        )


def result_lines(how: How, count: int, seconds: float, bad_files: BadFiles, remarked: int) -> Iterator[str]:
    """What was checked, and what was found."""
    if not count:
        return
    checked = {
        "all": f"decoded all {count:,} images",
        "headers": f"read the headers of all {count:,} images",
        "sample": f"read the headers of {count:,} images, a sample,",
    }[how]
    checked += f" in {duration(seconds)}"
    if remarked:
        yield f"{counted(remarked, 'image')} can be read after a repair, or with a loss: vitreous check lists them"
    if not bad_files.count:
        yield f"{checked}; none broken"
        return
    parts = [f"{len(reasons):,} of {bad_files.totals[split]:,} {split}" for split, reasons in bad_files.reasons.items()]
    found = ", ".join(part for part in parts if not part.startswith("0 "))
    yield f"{checked}; broken and left out: {found} images; see {bad_files.folder.path / BAD_FILES}"
