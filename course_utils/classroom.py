"""The teacher's side of the exercises with nbgrader: student versions, a course folder, and grades from the sandbox.

An exercise has one source, `exercises/NN_topic.ipynb`. nbgrader makes the student version from it, and hands out,
collects and shows what comes back. It does not run it: `course grade` does, in a sandbox, and what that found goes into
nbgrader's gradebook by `SandboxedGrades`, which stands where nbgrader would execute the notebook.
"""

import csv
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

try:
    from nbgrader.preprocessors import NbGraderPreprocessor
except ImportError as error:
    raise ImportError('nbgrader is not installed: run `pip install "course-utils[teach]"`') from error
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from traitlets import Unicode
from traitlets.config import Config

COURSE = "self-supervised-learning"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TAG = re.compile(r"<(?=[A-Za-z/!?])")  # where HTML begins
CONFIG = f'''"""nbgrader for the exercises. Only `course grade` executes what a student wrote, in a sandbox."""

from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    LimitOutput,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from course_utils.classroom import NoScripts, ReleasedCells, SandboxedGrades

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "{COURSE}"
c.Autograde.sanitize_preprocessors = [
    ReleasedCells,
    NoScripts,
    ClearOutput,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    SandboxedGrades,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
'''


def student_version(source: Path) -> NotebookNode:
    """What students get of an exercise: nbgrader's version of the source notebook, without solutions and outputs.

    Raises ValueError for a file that is not there or that nbgrader refuses, with its reason.
    """
    source = Path(source)
    if not source.is_file():
        raise ValueError(f"the exercise {source} is not there")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = root / "source" / source.stem
        place.mkdir(parents=True)
        nbformat.write(_moved(nbformat.read(source, as_version=4)), place / source.name)
        config = Config()
        config.CourseDirectory.root = folder
        config.CourseDirectory.course_id = COURSE
        config.CourseDirectory.db_url = f"sqlite:///{root / 'gradebook.db'}"
        config.CourseDirectory.assignment_id = source.stem
        converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
        converter.log.setLevel("CRITICAL")
        with _tools_of_this_python():
            converter.start()
        notebook = nbformat.read(root / "release" / source.stem / source.name, as_version=4)
    for name in set(notebook.metadata) - {"kernelspec", "language_info"}:
        del notebook.metadata[name]  # what the solved notebook took belongs to the source
    return notebook


def _moved(notebook: NotebookNode) -> NotebookNode:
    """With the relative links of `exercises/` as they are in `notebooks/05_exercises/`, one folder deeper."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](../../").replace("](../../notebooks/", "](../")
    return notebook


@contextmanager
def _tools_of_this_python():
    """nbgrader calls alembic, which stands beside this Python and perhaps not on the path."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def write_student_versions(sources: Iterable[Path], folder: Path) -> list[Path]:
    """Write the student version of each source into `folder` under the same name; returns the files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for source in sorted(map(Path, sources)):
        files.append(folder / source.name)
        nbformat.write(student_version(source), files[-1])
    return files


def prepare_course(folder: Path, sources: Iterable[Path]) -> None:
    """Make an nbgrader course of the exercises in `folder`: `source/NN_topic/NN_topic.ipynb` and `nbgrader_config.py`.

    Links lead from `notebooks/05_exercises/`, where students keep what they get. What is there already stays as it is.
    Raises ValueError if no source is given.
    """
    sources = sorted(map(Path, sources))
    if not sources:
        raise ValueError("there are no exercises to make a course of: call this where the folder exercises/ is")
    folder = Path(folder)
    for source in sources:
        place = folder / "source" / source.stem / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            nbformat.write(_moved(nbformat.read(source, as_version=4)), place)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, "utf8")


class ReleasedCells(NbGraderPreprocessor):
    """Gives a submission back the cells that nbgrader counts on, where a student deleted, renamed or replaced them.

    Without it, points of a task whose check cell is gone would be missing from the gradebook. A text whose cell is gone
    waits for a person. release: the folder of what was handed out, from the course's root.
    """

    release = Unicode("release", help="the folder of what was handed out, from the course's root").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Mark the cells as they were released, and put in those that are missing."""
        of = resources["nbgrader"]
        file = Path(self.release) / of["assignment"] / f"{of['notebook']}.ipynb"
        cells = nbformat.read(file, as_version=4).cells
        released = [cell for cell in cells if _mark_of(cell)]
        kinds = {_mark_of(cell): cell.cell_type for cell in released}
        for cell in nb.cells:
            if kinds.get(_mark_of(cell)) != cell.cell_type:
                cell.metadata.pop("nbgrader", None)
        after = min(cells.index(released[0]) if released else 0, len(nb.cells))
        for cell in released:
            place = _place(nb.cells, cell)
            if place is None:
                place = after
                nb.cells.insert(place, _stand_in(cell))
            nb.cells[place].metadata["nbgrader"] = deepcopy(cell.metadata["nbgrader"])
            after = place + 1
        return nb, resources


def _mark_of(cell: NotebookNode) -> str:
    """The name that nbgrader knows a cell by, "" where there is none."""
    marks = cell.metadata.get("nbgrader")
    name = marks.get("grade_id") if isinstance(marks, dict) else ""
    return name if isinstance(name, str) else ""


def _place(cells: list[NotebookNode], released: NotebookNode) -> int | None:
    """Where a released cell is in a submission: by its mark, else a cell without one that has its text or function."""
    name = _mark_of(released)
    for place, cell in enumerate(cells):
        if _mark_of(cell) == name:
            return place
    for place, cell in enumerate(cells):
        if not _mark_of(cell) and cell.cell_type == released.cell_type:
            is_function = cell.cell_type == "code" and cell.source.startswith(f"def {name}(")
            if is_function or cell.source.strip() == released.source.strip():
                return place
    return None


def _stand_in(released: NotebookNode) -> NotebookNode:
    cell = deepcopy(released)
    marks = cell.metadata["nbgrader"]
    if marks.get("grade") and marks.get("solution"):
        cell.source = "The cell for this answer was missing: look for the answer in the cells around."
    return cell


class NoScripts(NbGraderPreprocessor):
    """Takes from a submission what a teacher's browser would run when it shows the page.

    Markdown may hold HTML, and formgrader's pages have the rights of the Jupyter server that they come from. A space
    after `<` ends a tag and changes neither a formula nor code. Metadata reach the page too: nbgrader's own stay.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Break HTML tags in texts, and drop metadata that a template writes into a page."""
        nb.metadata = NotebookNode(kernelspec=KERNEL)
        for number, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                cell.source = TAG.sub("< ", cell.source)
            cell.metadata = NotebookNode({name: cell.metadata[name] for name in cell.metadata if name == "nbgrader"})
            if "id" in cell:
                cell.id = f"cell-{number}"
        return nb, resources


class SandboxedGrades(NbGraderPreprocessor):
    """Gives each check cell of a submission the outcome that `course grade` found, in place of executing the notebook.

    grades: the folder that `course grade` wrote, beside the course's submissions unless told otherwise. A task's points
    become the cell's result, which nbgrader takes as its score, below the remark; a student or a task that is not in
    the table has none.
    """

    grades = Unicode("grades", help="the folder that `course grade` wrote, from the course's root").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Fill in the check cells' outputs."""
        of = resources["nbgrader"]
        points = read_points(Path(self.grades), of["assignment"], of["student"])
        remarks = read_remarks(Path(self.grades), of["assignment"], of["student"])
        for count, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), 1):
            marks = cell.metadata.get("nbgrader", {})
            if marks.get("grade") and not marks.get("solution"):
                task = marks["grade_id"].removeprefix("check_")
                earned = points.get(task, 0.0)
                data = {"text/plain": str(earned)}
                said = new_output("stream", name="stdout", text=remarks.get(task, ""))
                cell.outputs = [said, new_output("execute_result", data=data, execution_count=count)]
                cell.execution_count = count
        return nb, resources


def read_points(grades: Path, exercise: str, student: str) -> dict[str, float]:
    """Points by task from the table of `course grade`; nothing for a student who is not in it.

    Raises ValueError where the exercise has not been graded.
    """
    table = Path(grades) / exercise / "grades.csv"
    if not table.is_file():
        raise ValueError(f"{exercise} is not graded yet: {table} is missing, run `course grade` first")
    with table.open(encoding="utf8", newline="") as lines:
        row = next((row for row in csv.DictReader(lines) if row["student"] == student), {})
    return {name: float(value) for name, value in row.items() if value and name not in ("student", "seed")}


def read_remarks(grades: Path, exercise: str, student: str) -> dict[str, str]:
    """Why a student earned what they did, task by task; nothing where `course grade` wrote no remarks."""
    table = Path(grades) / exercise / "remarks.csv"
    if not table.is_file():
        return {}
    with table.open(encoding="utf8", newline="") as lines:
        return {row["task"]: row["remark"] for row in csv.DictReader(lines) if row["student"] == student}
