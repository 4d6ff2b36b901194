"""The part of a check that costs a run almost nothing: counts and names, and exact copies of files."""

import shlex
from collections.abc import Iterator

from vitreous.data.check.classes import class_findings, counts_of
from vitreous.data.check.contents import exact_copies
from vitreous.data.check.duplicates import copy_findings
from vitreous.data.check.findings import Finding, by_severity
from vitreous.data.check.samples import Samples
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.trees.archives import ArchiveLoader
from vitreous.support.text import counted

MOST_FILES = 20_000  # of which copies are looked for; of archives, whose sizes are in memory, any number
SECONDS = 10.0  # for reading them


def quick_check(data: ImageData, seconds: float = SECONDS) -> list[Finding]:
    """What can be found without decoding an image, the serious findings first.

    Args:
        data: an opened source.
        seconds: to spend at most on reading files; those of a size of their own are never read.
    """
    samples = Samples(data)
    findings = class_findings(data, counts_of(data))
    late, in_archives = len(samples), all(isinstance(split.load, ArchiveLoader) for split in data.splits)
    if in_archives or late <= MOST_FILES:
        groups, late = exact_copies(samples, seconds)
        findings += copy_findings(samples, groups)
    if late:
        findings.append(not_compared(late, len(samples), data))
    return by_severity(findings)


def check_lines(data: ImageData) -> Iterator[str]:
    """What `quick_check` finds, in lines for a run to print; without what the source's notes already say."""
    for finding in quick_check(data):
        if finding.text not in data.notes:
            head = "warning" if finding.severity == "fix" else "note"
            hints = [finding.hint, f"{check_command(data)} lists them" if finding.kind == "leak" else ""]
            yield "; ".join([f"{head}: {finding.text}{example(finding)}", *filter(None, hints)])


def example(finding: Finding) -> str:
    """The first pair of copies in two splits or classes: ", such as 'train/a/1.jpg' and 'val/a/1.jpg'"."""
    if finding.kind not in ("leak", "conflict"):
        return ""
    first, *others = finding.items
    place = 1 if finding.kind == "leak" else 2  # of the split, or the class
    other = next(row for row in others if row[0] == first[0] and row[place] != first[place])
    return f", such as {str(first[-1])!r} and {str(other[-1])!r}"


def check_command(data: ImageData) -> str:
    """What looks at all of the data: a command, or a function if no command can name it."""
    return "vt.check(…)" if data.in_python else shlex.join(["vitreous", "check", data.name])


def not_compared(count: int, total: int, data: ImageData) -> Finding:
    """How many images the search for copies left out."""
    text = f"copies were not looked for among {count:,} of {counted(total, 'image')}"
    return Finding(
        "not_compared",
        "notice",
        text,
        ((count,),),
        0,
        f"{check_command(data)} compares all of them",
    )
