"""A chapter's index: every notebook is in it, with its question and about the time that its last run took."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MINUTES = {"02_self_supervised": 8, "03_unsupervised": 6}  # on two cores; the index says of what kind
FILES = [path for chapter in MINUTES for path in sorted((NOTEBOOKS / chapter).glob("*.ipynb"))]
every_chapter = pytest.mark.parametrize("chapter", MINUTES)


def index(chapter):
    return (NOTEBOOKS / chapter / "README.md").read_text("utf8")


def rows(chapter):
    """{file: (question, seconds)} as the index has them."""
    found = re.findall(r"(?m)^\| \[[^\]]+\]\((\S+\.ipynb)\) \| (.+?) \| (\d+) \|$", index(chapter))
    return {name: (question, int(seconds)) for name, question, seconds in found}


@every_chapter
def test_the_index_has_every_notebook_in_order(chapter):
    assert list(rows(chapter)) == [path.name for path in FILES if path.parent.name == chapter]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_notebook_is_listed_with_the_question_it_asks_and_the_time_it_takes(path):
    question, seconds = rows(path.parent.name)[path.name]
    notebook = nbformat.read(path, as_version=4)
    asked = " ".join(re.search(r"\*\*([^*]*\?)\*\*", notebook.cells[0].source)[1].split())
    assert question == asked
    assert seconds == pytest.approx(notebook.metadata["course"]["cpu_seconds"], rel=0.25, abs=5)


@every_chapter
def test_the_whole_chapter_runs_in_the_minutes_that_it_promises(chapter):
    total = sum(seconds for _, seconds in rows(chapter).values()) / 2 / 60  # on two cores
    assert re.search(rf"\b{total:.1f} minutes\b", index(chapter)), f"the index must say {total:.1f} minutes"
    assert total <= MINUTES[chapter]
