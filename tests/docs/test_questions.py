"""docs/paper/questions.md: twenty questions, and answers whose numbers are on the pages they link to."""

import re

import pytest

from docs.include_source import PAGES
from tests.docs.test_documents import anchors

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


def numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in NUMBER.findall(text)}


def test_there_are_twenty():
    assert [int(number) for number, _, _ in QUESTIONS] == list(range(1, 21))
    assert TEXT.count("<details>") == TEXT.count("</details>") == 20
    assert all("?" in question for _, question, _ in QUESTIONS)


def test_every_page_has_a_question():
    linked = {name for _, _, answer in QUESTIONS for name, _ in LINK.findall(answer)}
    boxes = {"patch_embedding", "position_embedding", "layer_norm", "attention", "mlp", "encoder", "head", "model"}
    assert linked == boxes | {"training", "inside"}


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number, _, answer in QUESTIONS])
def test_the_numbers_of_an_answer_are_on_the_pages_it_links_to(number: str, answer: str):
    text, _, links = answer.partition("→")
    sources = LINK.findall(links)
    assert sources
    assert [anchor for name, anchor in sources if anchor not in anchors(page(name))] == []
    known = set.union(*(numbers(page(name)) for name, _ in sources))
    assert numbers(text) - known == set(), f"question {number}"
