"""The teacher's side: student versions leak nothing, and nbgrader's cycle ends with the sandbox's points."""

import csv
import getpass
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip("nbgrader", reason="nbgrader is not installed")
from course_utils.classroom import prepare_course, read_points, student_version, write_student_versions

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "exercises").glob("*.ipynb"))
STUDENTS = ROOT / "notebooks/05_exercises"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
ME = getpass.getuser()  # nbgrader's exchange knows students by the names of their accounts


def cell(kind, source, grade_id, points=None, *, solution=False):
    made = (new_code_cell if kind == "code" else new_markdown_cell)(source)
    made.metadata["nbgrader"] = {
        "schema_version": 3,
        "cell_type": kind,
        "grade_id": grade_id,
        "grade": points is not None,
        "solution": solution,
        "locked": not solution,
        "task": False,
    } | ({} if points is None else {"points": points})
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An exercise of two tasks and a question."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell(
                "# Halves\n\n[k-means](../notebooks/03/01.ipynb), [data](../data/README.md), [web](https://a/../b)"
            ),
            cell("code", "import os", "setup"),
            cell("code", f"def half(x):\n    {BEGIN}\n    return x / 2\n    {END}", "half", solution=True),
            cell("code", "raise SystemExit('a check that must never run')", "check_half", 3),
            cell("code", f"def double(x):\n    {BEGIN}\n    return 2 * x\n    {END}", "double", solution=True),
            cell("code", "print(double)", "check_double", 2),
            cell("markdown", f"{BEGIN}\nBecause.\n{END}", "text_why", 4, solution=True),
        ]
    )
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["course"] = {"cpu_seconds": 3}
    path = tmp_path_factory.mktemp("sources") / "09_halves.ipynb"
    nbformat.write(notebook, path)
    return path


# --- student versions


def test_a_student_version_has_stubs_where_solutions_were_and_nothing_of_their_run(source):
    found = student_version(source)
    code = {c.metadata.nbgrader.grade_id: c for c in found.cells if "nbgrader" in c.metadata}
    assert code["half"].source == "def half(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert code["text_why"].source == "YOUR ANSWER HERE"
    assert "checksum" in code["check_half"].metadata.nbgrader
    assert not any(c.get("outputs") or c.get("execution_count") for c in found.cells)
    assert set(found.metadata) == {"kernelspec"}


def test_its_links_lead_from_where_it_will_stand(source):
    assert (
        student_version(source)
        .cells[0]
        .source.endswith("[k-means](../03/01.ipynb), [data](../../data/README.md), [web](https://a/../b)")
    )


def test_making_it_twice_gives_the_same(source, tmp_path):
    one, two = (write_student_versions([source], tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert one == two


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the exercise .*nothing\.ipynb is not there"):
        student_version(tmp_path / "nothing.ipynb")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_student_version_in_the_course_is_that_of_its_source(path):
    assert nbformat.read(STUDENTS / path.name, as_version=4) == student_version(path), "run `make exercises`"


def test_every_student_version_has_a_source():
    assert [path.name for path in sorted(STUDENTS.glob("*.ipynb"))] == [path.name for path in SOURCES]


IDIOMS = {  # any training loop has these, in experiments as in solutions: they give nothing away
    "torch.manual_seed(seed)",
    "rng = torch.Generator().manual_seed(seed)",
    "for _ in range(steps):",
    "optimizer.zero_grad()",
    "loss.backward()",
    "optimizer.step()",
    "with torch.no_grad():",
}


def solution_lines(notebook):
    """The lines between the markers that say something of their own."""
    for one in notebook.cells:
        inside = False
        for line in one.source.splitlines():
            if line.strip() in (BEGIN, END):
                inside = line.strip() == BEGIN
            elif inside and len(line.strip()) > 12:
                yield line.strip()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_line_of_a_solution_and_nothing_hidden_is_left_in_the_student_version(path):
    lines = set(solution_lines(nbformat.read(path, as_version=4))) - IDIOMS
    assert len(lines) > 10
    student = nbformat.read(STUDENTS / path.name, as_version=4)
    given = {line.strip() for one in student.cells for line in one.source.splitlines()}
    assert not lines & given
    text = (STUDENTS / path.name).read_text("utf8")
    assert not [mark for mark in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "MARK SCHEME") if mark in text]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_link_of_a_student_version_leads_somewhere(path):
    text = "\n".join(one.source for one in nbformat.read(STUDENTS / path.name, as_version=4).cells)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (STUDENTS / link).exists()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_points_of_the_check_cells_are_those_of_the_tasks(path):
    from course_utils.checks import tasks_of

    cells = [one for one in nbformat.read(path, as_version=4).cells if "nbgrader" in one.metadata]
    marks = {one.metadata.nbgrader.grade_id: one.metadata.nbgrader for one in cells}
    tasks = tasks_of(path.stem)
    checks = {name.removeprefix("check_"): m["points"] for name, m in marks.items() if name.startswith("check_")}
    assert checks == {name: task.points for name, task in tasks.items()}
    sources = {one.metadata.nbgrader.grade_id: one.source for one in cells}
    for name in tasks:
        assert f"def {name}(" in sources[name]
        assert sources[f"check_{name}"] == f"check.{name}({name})"
    written = [m["points"] for name, m in marks.items() if m["grade"] and name.startswith("text_")]
    assert written, "an exercise asks for a text"


# --- nbgrader's cycle


class Classroom:
    """A course folder, students' folders and an exchange between them; commands run as whoever is named."""

    def __init__(self, root, source):
        self.root, self.course, self.exercise = root, root / "course", source.stem
        prepare_course(self.course, [source])
        (root / "exchange").mkdir()

    def run(self, command, who="teacher"):
        folder = self.course if who == "teacher" else self.root / who
        folder.mkdir(exist_ok=True)
        keep = ("PATH", "LANG", "LC_ALL", "COURSE_DATA", "COURSE_OFFLINE", "PYTHONPATH", "SYSTEMROOT", "VIRTUAL_ENV")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        environment["HOME"] = str(folder)
        where = [f"--Exchange.root={self.root / 'exchange'}", "--CourseDirectory.course_id=self-supervised-learning"]
        line = [sys.executable, "-m", "nbgrader", *command.split(), *where]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def answer(path, text):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = text
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def classroom(source, tmp_path_factory):
    """After release, fetch, submit, collect, zip_collect, grading and autograde."""
    room = Classroom(tmp_path_factory.mktemp("classroom"), source)
    name = room.exercise
    room.run(f"generate_assignment {name}")
    room.run(f"release_assignment {name}")
    room.run(f"fetch_assignment {name}", "alice")
    answer(room.root / "alice" / name / f"{name}.ipynb", "Because two halves are one.")
    room.run(f"submit {name}", "alice")
    room.run(f"collect {name}")
    spoilt = nbformat.read(room.root / "alice" / name / f"{name}.ipynb", as_version=4)
    spoilt.cells = [one for one in spoilt.cells if one.source not in ("import os", "print(double)")]
    spoilt.cells[1].metadata.clear()  # the answer `half`
    spoilt.cells[2].metadata["nbgrader"]["points"] = 100
    spoilt.cells[-1] = new_markdown_cell("My <script>alert(1)</script> is $a<b$.\n\n> quoted")
    spoilt.cells[-1].metadata["tags"] = ['"><script>alert(2)</script>']
    spoilt.metadata["language_info"] = {"name": "python", "pygments_lexer": '"><script>alert(3)</script>'}
    (room.course / "submitted/carol" / name).mkdir(parents=True)
    nbformat.write(spoilt, room.course / "submitted/carol" / name / f"{name}.ipynb")
    downloads = room.course / "downloaded" / name / "archive"
    downloads.mkdir(parents=True)
    with zipfile.ZipFile(downloads / "all.zip", "w") as archive:  # as a learning platform packs them
        archive.write(room.root / "alice" / name / f"{name}.ipynb", f"bob_{name}.ipynb")
    room.run(f"zip_collect {name} --FileNameCollectorPlugin.named_regexp=.*/(?P<student_id>[a-z]+)_(?P<file_id>{name})")
    table = room.course / "grades" / name / "grades.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "student,half,double,total,maximum,seed\n" + f"{ME},3.0,0.5,3.5,5,7\ncarol,2.0,1.5,3.5,5,7\n", "utf8"
    )
    table.with_name("remarks.csv").write_text(f"student,task,remark\n{ME},double,look at <zero>\n", "utf8")
    room.run(f"autograde {name}")
    room.run("export")
    return room


@pytest.mark.skipif(sys.platform == "win32", reason="nbgrader's exchange needs a Unix")
class TestCycle:
    def test_what_is_released_is_the_student_version(self, classroom, source):
        outbound = classroom.root / "exchange/self-supervised-learning/outbound"
        released = nbformat.read(outbound / source.stem / source.name, as_version=4)
        assert released.cells == student_version(source).cells

    def test_files_that_came_by_the_exchange_and_in_a_zip_are_both_collected(self, classroom, source):
        for student in (ME, "bob"):
            assert (classroom.course / "submitted" / student / source.stem / source.name).is_file()

    def test_the_gradebook_has_the_points_of_the_sandbox_and_none_for_who_was_not_graded(self, classroom):
        with (classroom.course / "grades.csv").open(newline="") as lines:
            scores = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(lines)}
        assert scores == {ME: 3.5, "bob": 0.0, "carol": 3.5}

    @pytest.mark.parametrize("student", [ME, "carol"])
    def test_the_text_waits_for_a_person_also_where_its_cell_is_gone(self, classroom, student):
        from nbgrader.api import Gradebook

        with Gradebook(f"sqlite:///{classroom.course / 'gradebook.db'}") as book:
            grades = book.find_submission("09_halves", student).notebooks[0].grades
            waiting = {grade.name: grade.needs_manual_grade for grade in grades}
        assert waiting == {"check_half": False, "check_double": False, "text_why": True}

    def test_the_remark_stands_above_the_points(self, classroom):
        found = nbformat.read(classroom.course / f"autograded/{ME}/09_halves/09_halves.ipynb", as_version=4)
        outputs = next(one.outputs for one in found.cells if one.source == "print(double)")
        assert [one.get("text") or one.data["text/plain"] for one in outputs] == ["look at <zero>", "0.5"]
        assert "look at &lt;zero&gt;" in HTMLExporter().from_notebook_node(found)[0]

    def test_cells_that_a_student_lost_are_put_back_where_they_were(self, classroom):
        found = nbformat.read(classroom.course / "autograded/carol/09_halves/09_halves.ipynb", as_version=4)
        names = [one.metadata.get("nbgrader", {}).get("grade_id") for one in found.cells]
        assert names == [None, "setup", "half", "check_half", "double", "check_double", "text_why", None]
        assert found.cells[3].metadata["nbgrader"]["points"] == 3
        assert found.cells[6].source.startswith("The cell for this answer was missing")

    def test_no_script_of_a_student_reaches_the_page_that_the_teacher_opens(self, classroom):
        found = nbformat.read(classroom.course / "autograded/carol/09_halves/09_halves.ipynb", as_version=4)
        page = HTMLExporter().from_notebook_node(found)[0]
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "alert(2)" not in page
        assert "alert(3)" not in page
        assert found.cells[-1].source == "My < script>alert(1)< /script> is $a< b$.\n\n> quoted"

    def test_before_grading_autograde_says_what_to_run(self, tmp_path):
        with pytest.raises(ValueError, match=r"09_halves is not graded yet: .* run `course grade` first"):
            read_points(tmp_path, "09_halves", "alice")


def test_a_course_that_is_there_keeps_what_the_teacher_changed(source, tmp_path):
    prepare_course(tmp_path, [source])
    for path in (tmp_path / "nbgrader_config.py", tmp_path / "source/09_halves/09_halves.ipynb"):
        path.write_text("mine", "utf8")
    prepare_course(tmp_path, [source])
    assert (tmp_path / "nbgrader_config.py").read_text("utf8") == "mine"
    assert (tmp_path / "source/09_halves/09_halves.ipynb").read_text("utf8") == "mine"
    with pytest.raises(ValueError, match="there are no exercises to make a course of"):
        prepare_course(tmp_path, [])
