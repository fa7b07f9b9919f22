"""Pages and tables hold what was found, escaped; look-alikes are pairs whose code has one shape."""

import csv

import pytest

from course_utils.grading import report
from course_utils.grading.grade import Result, TaskResult


def result(student, *scores, remark="a hint", problem="", trouble=""):
    tasks = tuple(
        TaskResult(f"task_{i}", "a <title>", 2, score, remark, "done", 0.1, trouble) for i, score in enumerate(scores)
    )
    return Result(student, "99_sums", 5, "d", "j", problem, 1.5, tasks)


LONG = '''
def assign(points, centers):
    """Nearest centre."""
    distances = []
    for point in points:
        row = [((point - center) ** 2).sum() for center in centers]  # squared
        distances.append(row)
    table = np.array(distances)
    return table.argmin(axis=1)

def update(points, labels, k):
    new = np.zeros((k, points.shape[1]))
    for j in range(k):
        mine = points[labels == j]
        if len(mine) > 0:
            new[j] = mine.mean(axis=0)
    return new
'''
RENAMED = LONG
for name in ("points", "centers", "distances", "table", "labels", "mine", "row", "new"):
    RENAMED = RENAMED.replace(name, f"my_{name}_now")
RENAMED = RENAMED.replace("# squared", "# the square of it, my own idea").replace("Nearest centre", "I wrote this")
OTHER = """
def assign(points, centers):
    squares = (points**2).sum(1)[:, None] - 2 * points @ centers.T + (centers**2).sum(1)
    return np.argmin(squares, 1)

def update(points, labels, k):
    hot = np.eye(k)[labels]
    counts = np.maximum(hot.sum(0), 1)
    return (hot.T @ points) / counts[:, None]

def inertia(points, centers, labels):
    difference = points - centers[labels]
    return float(np.einsum("nd,nd->", difference, difference))

def seeding(points, k, generator):
    chosen = [points[generator.integers(len(points))]]
    while len(chosen) < k:
        nearest = np.min([np.square(points - one).sum(1) for one in chosen], axis=0)
        chosen.append(points[generator.choice(len(points), p=nearest / nearest.sum())])
    return np.stack(chosen)
"""


def test_other_names_comments_and_order_of_cells_do_not_hide_a_copy():
    assert report.similar({"a": [LONG], "b": [OTHER], "c": ["x = 1", RENAMED]}) == [("a", "c", 1.0)]
    halves = LONG.split("\n\n")
    assert report.similar({"a": [LONG], "b": halves[::-1]}, at_least=0.7)[0][:2] == ("a", "b")


def test_a_part_of_a_longer_notebook_is_found_and_own_work_is_not():
    assert report.similar({"a": [LONG], "b": [OTHER + RENAMED]})[0][2] == 1.0
    assert report.similar({"a": [LONG], "b": [OTHER]}) == []


def test_what_was_handed_out_and_what_everybody_writes_does_not_count():
    assert report.similar({"a": [LONG], "b": [RENAMED]}, stub=[LONG]) == []
    assert report.similar({name: [LONG] for name in "abcd"}) == []
    assert len(report.similar({name: [LONG] for name in "abc"})) == 3


def test_short_or_broken_code_is_not_compared_and_breaks_nothing():
    assert report.similar({"a": ["k = 3"], "b": ["k = 4"]}) == []
    assert report.similar({"a": ["def f(:\n  '''", "\0", LONG], "b": [RENAMED, "(" * 300]}) == [("a", "b", 1.0)]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("import numpy as np", []),
        ("from sklearn.cluster import KMeans", ["sklearn"]),
        ("def f():\n    import course_utils.checks.k_means as k", ["course_utils.checks"]),
        ("from course_utils.cluster import KMeans\nimport sklearn", ["course_utils.cluster", "sklearn"]),
        ("from course_utils.data import load\n# from sklearn import x", []),
        ("from course_utils import losses", ["course_utils.losses"]),
        ("from course_utils import data, cluster as c", ["course_utils.cluster"]),
        ("from course_utils import (\n    losses,\n    cluster,\n)", ["course_utils.cluster", "course_utils.losses"]),
        ("import numpy as np, sklearn.cluster as c", ["sklearn"]),
        ("import os; from scipy.cluster.vq import kmeans2", ["scipy"]),
        ("if True: from \\\n  umap import UMAP", ["umap"]),
        ("x = '#'; import sklearn", ["sklearn"]),
        ("def f():\n    return __import__('sk' + 'learn').cluster", ["__import__"]),
        ("from importlib import import_module as i", ["importlib"]),
        ("import sys\nsys.modules['course_utils.calling']", ["course_utils.calling", "sys.modules"]),
        ("import course_utils as c\nc.cluster.k_means", ["import course_utils"]),
        ("exec('1')\neval ('1')\nmodel.eval()\nretrieval()", ["eval", "exec"]),
        ("from course_utils.data.customers import customers as c", ["course_utils.data"]),
        ("from course_utils.data import load, glyphs", ["course_utils.data"]),
        ("def f(x):\n    return load('glyphs', seed=3)", ["course_utils.data"]),
        ("def f(customers):\n    return customers.log(), np.load('x')", []),
    ],
)
def test_ready_made_parts_are_named(cell, found):
    assert report.ready_made([cell]) == found


def test_what_was_handed_out_is_not_held_against_a_student_and_its_use_in_an_answer_is_seen():
    given = [
        "from sklearn.cluster import KMeans as SK, DBSCAN\nfrom course_utils.checks import Checker",
        "SK(3).fit(x)",
    ]
    assert report.ready_made([*given, "def f(x):\n    return x"], given) == []
    assert report.ready_made([*given, "def f(x):\n    return SK(3).fit(x).labels_"], given) == ["SK"]
    assert report.ready_made([given[0], "SK(4).fit(x)"], given) == ["SK"]


def test_the_feedback_shows_scores_and_hints_escaped():
    page = report.feedback(result("<i>ada", 2, 0, 1.5, remark="use <b>"))
    assert "3.5 of 6 points" in page
    assert [page.count(f"<td>{mark}</td>") for mark in "✓✗~"] == [1, 1, 1]
    assert "use &lt;b&gt;" in page
    assert "<i>" not in page
    assert "a <title>" not in page
    assert "Nothing could be run: it is a link." in report.feedback(result("a", 0, problem="it is a link"))


def test_the_summary_names_the_hardest_task_the_frequent_hints_and_the_look_alikes():
    results = [result("a", 2, 0, remark="mind the axis"), result("b", 2, 1, remark="mind the axis"), result("c", 2, 2)]
    results.append(result("d", 0, 0, remark="no notebook", problem="no notebook"))
    page = report.summary(results, [("a", "b", 0.91)], {"a": ["sklearn"], "b": []})
    assert "the least, 50%, in task_1" in page, "who handed nothing in does not make a task hard"
    assert (
        "4 students, 4 points, seed 5. 3 handed in a notebook that could be read, with 3.0 points on average." in page
    )
    assert "<td>task_1</td><td>2</td><td>mind the axis</td>" in page
    assert "<td>task_1</td><td>1</td>" not in page
    assert "<td>a</td><td>b</td><td>91%</td>" in page
    assert "<td>a</td><td>sklearn</td>" in page
    assert "The judge failed" not in page
    assert "IndexError" in report.summary([result("a", 0, trouble="IndexError: 3")], [], {})


def test_a_class_of_which_nothing_could_be_read_has_a_summary_too():
    assert "No notebook could be read." in report.summary([result("a", 0, problem="no notebook")], [], {})


def test_the_picture_is_a_png_of_all_some_and_none():
    picture = report.where_students_fail([result("a", 2, 0, 1), result("b", 2, 2, 0)])
    assert picture.startswith(b"\x89PNG")


def test_tables_hold_no_formula_and_empty_cells_stay_empty(tmp_path):
    report._table(tmp_path / "t.csv", [["=1+1", "+2", "-x", "@y", "", "a,b", 3, "\tz"]])
    with (tmp_path / "t.csv").open(newline="") as lines:
        assert next(csv.reader(lines)) == ["'=1+1", "'+2", "'-x", "'@y", "", "a,b", "3", "'\tz"]
