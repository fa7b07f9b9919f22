"""Running notebooks: a copy with other data, in place with its budget, what stops a run, and what nbval compares."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils import notebooks
from course_utils.claims import CLAIM_MIME
from course_utils.notebooks import RunResult, claims, execute, main, run
from course_utils.precision import has_native_bf16

ROOT = Path(__file__).parents[1]


def tagged():
    return new_code_cell('DATA = "glyphs"\nSEED = 5', metadata={"tags": ["parameters"]})


@pytest.fixture
def write(tmp_path):
    def write(*sources, name="a.ipynb", parameters=True):
        cells = [tagged()] if parameters else []
        cells += [cell if isinstance(cell, dict) else new_code_cell(cell) for cell in sources]
        path = tmp_path / name
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def read(path):
    return nbformat.read(path, as_version=4)


def texts(path):
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in read(path).cells]


def test_a_run_replaces_data_and_seed_after_the_tagged_cell_and_leaves_the_notebook_as_it_was(write, tmp_path):
    path = write("print(DATA, SEED)", 'open("made-here", "w").close()')
    before = path.read_bytes()
    result = run(path, data="digits", seed=7, out=tmp_path / "copy.ipynb")
    assert result.succeeded
    assert texts(tmp_path / "copy.ipynb") == ["", "", "digits 7\n", ""]
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ipynb", "copy.ipynb", "made-here"]


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, "glyphs 5"), ({"seed": 0, "data": "folder:it's"}, "folder:it's 0"), ({"seed": 3}, "glyphs 3")],
)
def test_what_is_not_given_stays_as_the_notebook_has_it(write, tmp_path, given, seen):
    run(write("print(DATA, SEED)"), **given, out=tmp_path / "copy.ipynb")
    assert texts(tmp_path / "copy.ipynb")[-1] == f"{seen}\n"


CLAIMS = """from course_utils.claims import claim
claim("two", 2.0, at_least=1)
claim("three", 3.0, above=5, data=DATA)"""


def test_claims_are_read_back_and_those_about_other_data_are_only_reported(write):
    result = run(write(CLAIMS), data="digits")
    assert [(made["text"], made["value"], made["asserted"], made["holds"]) for made in result.claims] == [
        ("two", 2.0, True, True),
        ("three", 3.0, False, False),
    ]
    assert str(result).splitlines()[:2] == ["✓ two: 2 (bound ≥ 1)", "· three: 3 (bound > 5, reported only)"]


def test_a_run_reports_the_error_that_stopped_it_keeps_the_copy_and_forgets_what_an_earlier_run_claimed(
    write, tmp_path
):
    stale = {"text": "old", "value": 1.0, "wanted": "> 0", "holds": True, "asserted": True}
    later = new_code_cell("1", outputs=[new_output("display_data", {CLAIM_MIME: stale})], execution_count=3)
    path = write(CLAIMS, later)
    result = run(path, out=tmp_path / "copy.ipynb")
    assert not result.succeeded
    assert result.error == "ClaimError: three: wanted > 5, measured 3"
    assert [made["text"] for made in result.claims] == ["two"]
    assert str(result).endswith(f"1 claims; stopped: {result.error}")
    kept = read(tmp_path / "copy.ipynb").cells
    assert [cell.execution_count for cell in kept] == [1, 2, None]
    assert kept[1].outputs[-1].ename == "ClaimError"


def test_a_cell_that_takes_too_long_or_kills_its_kernel_is_an_error_of_one_sentence(write, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(notebooks, "TIMEOUT", 2)
        assert run(write("while True: pass")).error == "a cell took more than 2 s"
    assert run(write("import os; os._exit(1)")).error == "the kernel died, as it does when memory runs out"


@pytest.mark.parametrize(
    ("made", "line"),
    [
        ({"value": 0.93512, "holds": True, "asserted": True}, "✓ x: 0.9351 (bound > 0)"),
        ({"value": 0.0, "holds": False, "asserted": True}, "✗ x: 0 (bound > 0)"),
        ({"value": None, "holds": True, "asserted": False}, "· x: not finite (bound > 0, reported only)"),
    ],
)
def test_a_result_has_a_line_a_claim(made, line):
    result = RunResult([{"text": "x", "wanted": "> 0"} | made], seconds=3.2)
    assert str(result) == f"{line}\n1 claims; ran to the end in 3 s"


def refusals(write, tmp_path):
    (tmp_path / "a.txt").write_text("{}")
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "no.ipynb").write_text("{}")
    yield {"path": tmp_path / "gone.ipynb"}, "gone.ipynb is not a notebook: give the path of an .ipynb file"
    yield {"path": tmp_path}, "is not a notebook"
    yield {"path": tmp_path / "a.txt"}, "a.txt is not a notebook"
    yield {"path": tmp_path / "empty.ipynb"}, "empty.ipynb is not a notebook"
    yield {"path": tmp_path / "no.ipynb"}, "no.ipynb is not a notebook"
    yield {"path": write("1"), "data": "nonsense"}, "'nonsense' is no data set: choose one of glyphs.* or folder:PATH"
    yield {"path": write("1", parameters=False), "seed": 1}, "must have one cell tagged 'parameters'.* it has 0"
    yield {"path": write(tagged(), name="two.ipynb"), "data": "digits"}, "tagged 'parameters'.* it has 2"
    yield {"path": write("1"), "out": tmp_path / "gone" / "b.ipynb"}, "b.ipynb cannot be written: there is no folder"
    yield {"path": write("1"), "out": tmp_path / "." / "a.ipynb"}, "a.ipynb is the notebook itself"


def test_a_run_that_cannot_be_made_is_refused_before_a_kernel_starts(write, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "NotebookClient", None)
    for arguments, message in refusals(write, tmp_path):
        with pytest.raises(ValueError, match=message):
            run(**arguments)


# --- in place


def test_execute_writes_outputs_counts_and_budget_and_no_other_metadata(write):
    path = write(
        new_markdown_cell("# A", metadata={"collapsed": True}),
        "max = min = sum = print = None",  # names a notebook may well use
        "import time, subprocess, sys\nfrom course_utils.claims import claim\nstart = time.process_time()",
        'filled = bytearray(300 << 20)\nclaim("size", len(filled) / 2**20, at_least=300)',
        "while time.process_time() - start < 1.2: pass",
        'subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 1.2: pass"]) and None',
    )
    notebook = read(path)
    notebook.metadata = {"colab": {}, "kernelspec": {"name": "other", "display_name": "Other"}}
    notebook.cells[2].metadata = {"scrolled": True, "tags": ["nbval-ignore-output"]}
    notebook.cells[3].metadata = {"nbgrader": {"grade_id": "setup"}}  # an exercise's, for nbgrader
    nbformat.write(notebook, path)
    result = execute(path)
    assert result.succeeded
    assert result.claims == claims(read(path))
    assert [made["text"] for made in result.claims] == ["size"]
    after = read(path)
    course = after.metadata.pop("course")
    assert after.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    tags = [
        {"tags": ["parameters"]},
        {},
        {"tags": ["nbval-ignore-output"]},
        {"nbgrader": {"grade_id": "setup"}},
        {},
        {},
        {},
    ]
    assert [cell.metadata for cell in after.cells] == tags
    assert [cell.source for cell in after.cells] == [cell.source for cell in notebook.cells]
    assert [cell.execution_count for cell in after.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5, 6]
    assert 2 <= course["run_seconds"] == round(result.seconds)
    assert course["cpu_seconds"] >= 2
    assert 300 < course["peak_mib"] < 600
    assert course.pop("bf16") is has_native_bf16("cpu")
    assert all(type(value) is int for value in course.values())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_peak_of_one_notebook_is_not_that_of_the_one_before(write):
    big, small = write("x = bytearray(400 << 20)"), write("x = 0", name="b.ipynb")
    assert main(["execute", str(big), str(small)]) == 0
    assert read(big).metadata.course.peak_mib > 400 > read(small).metadata.course.peak_mib


def test_execute_leaves_the_file_as_it_was_when_a_cell_fails_and_main_stops_there(write, capsys):
    failing, later = write("1 / 0"), write("print(1)", name="b.ipynb")
    before = failing.read_bytes(), later.read_bytes()
    assert main(["execute", str(failing), str(later)]) == 1
    assert (failing.read_bytes(), later.read_bytes()) == before
    assert f"{failing}\n0 claims; stopped: ZeroDivisionError: division by zero\n" == capsys.readouterr().out


def test_main_names_what_is_no_notebook(tmp_path, capsys):
    assert main(["execute", str(tmp_path / "gone.ipynb")]) == 1
    assert "gone.ipynb is not a notebook" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["run", "a.ipynb"])


# --- nbval, with the project's conftest


def validate(folder):
    """Exit status and report of nbval on the notebooks of a folder."""
    shutil.copy(ROOT / "conftest.py", folder)
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "--color=no", "-q", "--rootdir", str(folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "."], cwd=folder, env=env, capture_output=True, text=True
    )
    return done.returncode, done.stdout


def test_nbval_compares_the_line_of_a_claim_and_not_what_was_measured(write, tmp_path):
    measured = 'import os\nfrom course_utils.claims import claim\nclaim("part", int(os.environ["N"]) / 100, above=0.2)'
    plot = (
        "import os\nimport matplotlib.pyplot as plt\nfrom course_utils import plots\nfig, ax = plt.subplots()\n"
        '_ = ax.plot([0, int(os.environ["N"])])\nplots.show(fig, alt="A line from nought to a number.")'
    )
    paths = write(measured, plot), write('import os\nprint(os.environ["N"])', name="b.ipynb")
    os.environ["N"] = "30"
    try:
        assert main(["execute", *map(str, paths)]) == 0
        (shown,) = read(paths[0]).cells[2].outputs
        assert shown.metadata == {"image/png": {"alt": shown.data["text/plain"]}}
        os.environ["N"] = "40"
        status, report = validate(tmp_path)
    finally:
        del os.environ["N"]
    assert status == 1
    assert "1 failed, 4 passed" in report
    assert "FAILED b.ipynb::Cell 1" in report
