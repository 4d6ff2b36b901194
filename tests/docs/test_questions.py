"""docs/paper/questions.md: twenty questions, each with an answer that stands on the pages it leads to."""

import re

import pytest

from docs.include_source import PAGES

TEXT = (PAGES / "questions.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(
    r"^\*\*(\d+)\. (.+?)\*\*\n\n<details><summary>Answer</summary>\n\n(.+?)\n\n</details>$",
    TEXT,
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[[^]]+\]\((\w+)\.md#([\w-]+)\)")
NUMBER = re.compile(r"\d[\d,.]*\d")  # of two digits or more


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in NUMBER.findall(text)}


def test_there_are_twenty():
    assert [int(number) for number, _, _ in QUESTIONS] == list(range(1, 21))
    assert TEXT.count("<details>") == TEXT.count("</details>") == 20
    assert all("?" in question for _, question, _ in QUESTIONS)


def test_every_box_is_asked_about():
    asked = {name for _, _, answer in QUESTIONS for name, _ in LINK.findall(answer)}
    boxes = {"patch_embedding", "position_embedding", "layer_norm", "attention", "mlp", "encoder", "head", "model"}
    assert asked == boxes | {"training", "inside"}


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number, _, answer in QUESTIONS])
def test_an_answer_and_its_numbers_stand_on_the_pages_it_leads_to(number: str, answer: str):
    said, _, links = answer.partition("→")
    found = LINK.findall(links)
    assert found
    assert [anchor for name, anchor in found if anchor not in anchors(page(name))] == []
    there = set.union(*(numbers(page(name)) for name, _ in found))
    assert numbers(said) - there == set(), f"question {number}"
