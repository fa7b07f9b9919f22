"""A chapter's index: every notebook is in it, with its question and about the time that its last run took."""

import re
from pathlib import Path

import nbformat
import pytest

CHAPTER = Path(__file__).parents[2] / "notebooks" / "02_self_supervised"
NOTEBOOKS = sorted(path.name for path in CHAPTER.glob("*.ipynb"))
INDEX = (CHAPTER / "README.md").read_text("utf8")
ROWS = {name: (question, int(seconds)) for name, question, seconds in re.findall(
    r"(?m)^\| \[[^\]]+\]\((\S+\.ipynb)\) \| (.+?) \| (\d+) \|$", INDEX
)}  # fmt: skip
MINUTES = 10  # as recorded on a slow day; the aim is 8


def recorded(name):
    return nbformat.read(CHAPTER / name, as_version=4).metadata["course"]["cpu_seconds"]


def test_the_index_has_every_notebook_in_order():
    assert list(ROWS) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_listed_with_the_question_it_asks_and_the_time_it_takes(name):
    question, seconds = ROWS[name]
    first = nbformat.read(CHAPTER / name, as_version=4).cells[0].source
    asked = " ".join(re.search(r"\*\*([^*]*\?)\*\*", first)[1].split())
    assert question == asked
    assert seconds == pytest.approx(recorded(name), rel=0.25, abs=5)


def test_the_whole_chapter_runs_in_the_minutes_that_it_promises():
    total = sum(seconds for _, seconds in ROWS.values()) / 2 / 60  # on two cores
    assert re.search(rf"\b{total:.1f} minutes\b", INDEX), f"the index must say {total:.1f} minutes"
    assert total <= MINUTES
