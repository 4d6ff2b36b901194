"""The repository is written in plain American English: listed turns of phrase and British spellings stay out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_repository import ROOT, repository_files, text_of

# What a native engineer would not write, and what to write instead. Each sample is a sentence the pattern must find.
PLAINER = [
    # pattern, instead, sample
    (r"told", "given, printed, reported, or the fact itself", "stopped, as the user is told"),
    (r"tells", "says, shows, prints, or the fact itself", "the header tells the dtype"),
    (r"mend(?:s|ed|ing)?", "fix, hint", "a cause and what mends it"),
    (r"(?:is|are|was) no \w+ of", "is not a … of", "'depht' is no field of ViTConfig"),
    (r"whose file", "which family the file is from", "--family: whose file it is"),
    (r"by itself says|says (?:all )?by itself|say of (?:it|them)sel(?:f|ves)|says of itself",
     "records, stores", "what the file says of itself"),
    (r"wishes", "options, settings, request", "Wishes, from the command line"),
]  # fmt: skip
BRITISH = [
    (r"colour\w*", "color", "in colour"),
    (r"grey\w*", "gray", "a grey image"),
    (r"licence\w*", "license", "the licence of the weights"),
    (r"(?:re)?cent(?:re|red|res|ring)", "center", "the centre of the box"),
    (r"behaviour\w*", "behavior", "the same behaviour"),
    (r"neighbour\w*", "neighbor", "the nearest neighbour"),
    (r"favour\w*", "favor", "in favour of"),
    (r"flavour\w*", "flavor", "another flavour"),
    (r"(?:un|mis)?labell\w+", "labeled, labeling", "unlabelled images"),
    (r"(?:normal|regular|initial|optim|recogn|standard|summar|organ|visual|general|special|quant|real|util|minim|maxim|"
     r"equal|serial|parallel|token|penal)is(?:e|es|ed|ing|er|ers|ation|ations)", "-ize, -ization", "normalised pixels"),
]  # fmt: skip
RULES = [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead, sample) for pattern, instead, sample in PLAINER]
RULES += [
    (re.compile(rf"(?<![^\W_])(?:{p})(?![^\W_])", re.IGNORECASE), instead, sample) for p, instead, sample in BRITISH
]

TEXT = {".py", ".md", ".toml", ".txt", ".html", ".css", ".js", ".yml", ".yaml", ".ipynb", ".cfg", ""}
# Quoted licenses, package names, others' data, and this table.
EXCLUDED = {"LICENSE", "constraints.txt", "test_language.py"}
QUOTED = {(f"{file}.py", "licence") for file in ("vitreous/checkpoints/store", "tests/checkpoints/test_store")}
EXCLUDED_FOLDERS = ("tests/reference", "benchmarks/results", "experiments/results")


def prose_files() -> list[Path]:
    """The files whose language is ours."""
    return [
        path
        for path in repository_files()
        if path.suffix in TEXT
        and path.name not in EXCLUDED
        and not path.relative_to(ROOT).as_posix().startswith(EXCLUDED_FOLDERS)
    ]


def complaints(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines with a banned phrase: line number, the phrase, and what to write instead."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, instead, _ in RULES:
            for match in pattern.finditer(line):
                yield number, match[0], instead


def test_the_repository_is_in_plain_american_english():
    lines = [
        f"{name}:{number}: {phrase!r}; write {instead}"
        for name, text in ((path.relative_to(ROOT).as_posix(), text_of(path)) for path in prose_files())
        for number, phrase, instead in complaints(text)
        if (name, phrase) not in QUOTED
    ]
    assert not lines, "\n".join([f"{len(lines)} phrases to rewrite:", *lines])


@pytest.mark.parametrize(("pattern", "instead", "sample"), RULES, ids=[rule[0].pattern for rule in RULES])
def test_a_banned_phrase_is_found(pattern: re.Pattern[str], instead: str, sample: str):
    assert [(number, phrase) for number, phrase, _ in complaints(f"Plain English.\n{sample}.\n")] == [
        (2, match[0]) for match in pattern.finditer(sample)
    ]
    assert pattern.search(sample)


@pytest.mark.parametrize(
    "line",
    [
        "an intelligent, untold story of amendments, recommended by tellers",
        "there is no class 'fox'; the model has no class token",
        "This is not a field of the model config.",
        "The color of the gray center, by the behavior of its nearest neighbor.",
        "normalized, regularized, initialized, optimized, recognized, labeled, licensed",
        "precise, otherwise, promise, exercise, raised, revised, realistic, organism, minimis",
        "so many people wished for this",
    ],
)
def test_plain_english_passes(line: str):
    assert [phrase for _, phrase, _ in complaints(line)] == []
