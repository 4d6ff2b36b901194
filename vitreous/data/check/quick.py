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
        findings.append(not_compared(late, len(samples), data.name))
    return by_severity(findings)


def check_lines(data: ImageData) -> Iterator[str]:
    """What `quick_check` finds, in lines for a run to print; without what the source's notes already say."""
    for finding in quick_check(data):
        if finding.text not in data.notes:
            head = "warning" if finding.severity == "unwise" else "note"
            yield f"{head}: {finding.text}" + (f"; {finding.hint}" if finding.hint else "")


def not_compared(count: int, total: int, name: str) -> Finding:
    """How many images the search for copies left out."""
    text = f"copies were not looked for among {count:,} of {counted(total, 'image')}"
    return Finding(
        "not_compared",
        "notice",
        text,
        ((count,),),
        0,
        f"{shlex.join(['vitreous', 'check', name])} compares all of them",
    )
