"""A class is graded: each gets what was earned, with its hint; a second call goes on where the first stopped."""

import csv
import json
import os
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from course_utils.calling import Outcome, call
from course_utils.checks import core
from course_utils.cli import app
from course_utils.grading import grade as grading
from course_utils.grading import sandbox, wire


@pytest.fixture
def folder(tmp_path, hand_in, right):
    """Submissions of every quality."""
    folder = tmp_path / "in"
    hand_in(folder, "ada", ["while True: pass", *right.values(), "raise SystemExit"])
    hand_in(
        folder, "bob", ["def double(x):\n    return x * x", "def row_means(x):\n    return x.mean(0)", "def embed(:"]
    )
    hand_in(folder, "<b>cyd", ["def double(x):\n    raise ValueError(f'secret {x}')", *list(right.values())[1:]])
    (folder / "dan").mkdir()
    return folder


def rows(file):
    with file.open(encoding="utf8", newline="") as lines:
        return {row["student"]: row for row in csv.DictReader(lines)}


def remarks(result):
    return {task.name: task.remark for task in result.tasks}


class TestAClass:
    @pytest.fixture(autouse=True)
    def run(self, boxed, exercise, folder, tmp_path):
        self.exercise, self.out, self.folder = exercise, tmp_path / "out", folder
        self.results = {r.student: r for r in grading.grade(folder, self.out, seed=3)[exercise]}

    def test_points_hints_tables_pages_and_a_second_call(self, monkeypatch, hand_in, right):
        assert {name: result.total for name, result in self.results.items()} == {
            "ada": pytest.approx(5.5, abs=0.5),
            "<b>cyd": pytest.approx(4.5, abs=0.5),
            "bob": 0,
            "dan": 0,
        }
        assert remarks(self.results["ada"])["double"] == "passed"
        bob = remarks(self.results["bob"])
        assert bob["double"] == "that is the square"
        assert bob["row_means"] == "that is the mean of each column"
        assert "embed is not defined in the notebook (code cell 3 is not Python" in bob["embed"]
        assert "double stops with ValueError: try it with other sizes" in remarks(self.results["<b>cyd"])["double"]
        assert self.results["dan"].problem == f"no notebook {self.exercise}.ipynb was handed in"
        self.tables_hold_what_was_earned()
        self.pages_show_remarks_and_nothing_hidden()
        self.a_second_call_keeps_what_is_there(monkeypatch, hand_in, right)

    def tables_hold_what_was_earned(self):
        table = rows(self.out / self.exercise / "grades.csv")
        assert list(table) == ["<b>cyd", "ada", "bob", "dan"]
        for name, row in table.items():
            for task in self.results[name].tasks:
                assert float(row[task.name]) == task.score
            numbers = {key: float(value) for key, value in row.items() if key != "student"}
            assert numbers["total"] == self.results[name].total
            assert (numbers["maximum"], numbers["seed"]) == (6, 3)
        with (self.out / self.exercise / "remarks.csv").open(newline="") as lines:
            assert sum(row["remark"] == "that is the square" for row in csv.DictReader(lines)) == 1

    def pages_show_remarks_and_nothing_hidden(self):
        pages = {file.stem: file.read_text() for file in (self.out / self.exercise / "feedback").iterdir()}
        assert pages.keys() == self.results.keys()
        assert "that is the square" in pages["bob"]
        assert "<b>cyd" not in pages["<b>cyd"]
        assert "&lt;b&gt;cyd" in pages["<b>cyd"]
        for file in self.out.rglob("*"):
            if file.is_file():
                assert b"secret" not in file.read_bytes(), file
        inputs = {
            f"{value:.4f}"[:-1]
            for task in core.tasks_of(self.exercise).values()
            for case in task.graded_cases(3)
            for given in case.given.values()
            for value in np.ravel(given)
        }
        text = " ".join(pages.values()) + (self.out / self.exercise / "remarks.csv").read_text()
        assert not [value for value in inputs if value in text]
        summary = (self.out / self.exercise / "summary.html").read_text()
        assert "data:image/png;base64," in summary
        assert "4 students, 6 points, seed 3" in summary

    def a_second_call_keeps_what_is_there(self, monkeypatch, hand_in, right):
        ran = []
        run = sandbox.run

        def counted(request, *arguments, **options):
            ran.append(request)
            return run(request, *arguments, **options)

        monkeypatch.setattr(sandbox, "run", counted)
        again = {r.student: r for r in grading.grade(self.folder, self.out)[self.exercise]}
        assert again == self.results
        assert ran == []
        hand_in(self.folder, "bob", right.values())  # a new notebook is graded, and only that
        (self.out / self.exercise / "results" / "dan.json").write_text("{broken")
        again = {r.student: r for r in grading.grade(self.folder, self.out)[self.exercise]}
        assert len(ran) == 1
        assert again["bob"].total > 5
        assert {again[name] for name in ("ada", "<b>cyd", "dan")} == {self.results[n] for n in ("ada", "<b>cyd", "dan")}


@pytest.fixture
def fake(monkeypatch):
    """Runs submissions in this process: `code` is a dict of functions by student's first cell."""
    ran = []
    monkeypatch.setattr(sandbox, "find", lambda private: "fake")

    def run(request, kind, private, stop):
        ran.append(request["cells"][0])
        space = {}
        exec("\n".join(request["cells"]), space)
        answers = {}
        for task in request["tasks"]:
            how = core.Call(**task["how"])
            outcomes = [wire.pack(vars(call(space[task["name"]], given, how))) for given in task["cases"]]
            body = b"".join(outcomes)
            answers[task["name"]] = sandbox.Answer("done", 0.1, wire.HEAD.pack(wire.MAGIC, 0, len(body)) + body)
        return answers, []

    monkeypatch.setattr(sandbox, "run", run)
    return ran


def test_another_seed_and_a_mended_check_grade_everybody_again(fake, exercise, monkeypatch, tmp_path, hand_in, right):
    for student in ("ada", "bob"):
        hand_in(tmp_path / "in", student, right.values())
    first = grading.grade(tmp_path / "in", tmp_path / "out")[exercise]
    assert len(fake) == 2
    assert grading.grade(tmp_path / "in", tmp_path / "out")[exercise] == first
    assert len(fake) == 2
    other = grading.grade(tmp_path / "in", tmp_path / "out", seed=first[0].seed ^ 1)[exercise]
    assert len(fake) == 4
    assert other[0].seed != first[0].seed
    monkeypatch.setattr(grading, "_judged_by", lambda name: "another")
    grading.grade(tmp_path / "in", tmp_path / "out")
    assert len(fake) == 6


def test_without_a_seed_each_folder_of_grades_draws_its_own_and_the_inputs_follow_it(
    fake, exercise, monkeypatch, tmp_path, hand_in, right
):
    hand_in(tmp_path / "in", "ada", right.values())
    seeds = {grading.grade(tmp_path / "in", tmp_path / f"out{i}")[exercise][0].seed for i in range(3)}
    assert len(seeds) == 3
    seeds = (1, 2, 1, grading.SEEDS - 1, grading.SEEDS - 1 - 2**32)  # the last two are alike in 32 bits
    cases = [grading._exercise(exercise, seed).cases["double"][0].given["x"].tolist() for seed in seeds]
    assert cases[0] == cases[2]
    assert len({str(case) for case in cases}) == 4
    monkeypatch.setattr(grading.secrets, "randbelow", lambda most: most - 1)
    drawn = grading._seed(tmp_path, None)
    assert drawn == grading._seed(tmp_path, None) == 10**15 - 1  # nobody tries that many while a task runs


def test_an_interrupted_run_has_kept_what_was_done(fake, exercise, monkeypatch, tmp_path, hand_in, right):
    for student in "abcd":
        hand_in(tmp_path / "in", student, [f"name = '{student}'", *right.values()])
    run = sandbox.run

    def interrupted(request, *arguments, **options):
        if "'c'" in request["cells"][0]:
            raise KeyboardInterrupt
        return run(request, *arguments, **options)

    monkeypatch.setattr(sandbox, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grading.grade(tmp_path / "in", tmp_path / "out", jobs=1)
    stored = {file.stem for file in (tmp_path / "out" / exercise / "results").iterdir()}
    assert {"a", "b"} <= stored <= {"a", "b", "d"}  # the last may have begun
    fake.clear()
    monkeypatch.setattr(sandbox, "run", run)
    assert len(grading.grade(tmp_path / "in", tmp_path / "out", jobs=1)[exercise]) == 4
    assert sorted(fake) == [f"name = '{name}'" for name in "abcd" if name not in stored]


def test_a_child_that_did_not_start_gets_a_second_chance(fake, exercise, monkeypatch, tmp_path, hand_in, right):
    hand_in(tmp_path / "in", "ada", right.values())
    run, tries = sandbox.run, []

    def short_of_memory(*arguments, **options):
        tries.append(1)
        if len(tries) == 1:
            raise sandbox.SandboxError("the sandbox did not start")
        return run(*arguments, **options)

    monkeypatch.setattr(sandbox, "run", short_of_memory)
    assert grading.grade(tmp_path / "in", tmp_path / "out", seed=3)[exercise][0].total > 5


def test_a_judge_that_fails_on_an_odd_result_costs_that_task_and_tells_the_teacher(
    fake, exercise, monkeypatch, known, tmp_path, hand_in
):
    def first(case, outputs):
        return core.Score(float(outputs["result"][0]), "")

    tasks = [
        core.Task(
            name,
            "",
            1,
            lambda rng: [core.Case({"x": np.ones(2)})],
            lambda x: x,
            (),
            library="numpy",
            judge=lambda *_: None,
            score=first,
        )
        for name in ("odd", "even")
    ]
    known(monkeypatch, tasks)
    hand_in(tmp_path / "in", "ada", ["def odd(x):\n    return x[:0]", "def even(x):\n    return x"])
    odd, even = grading.grade(tmp_path / "in", tmp_path / "out")[exercise][0].tasks
    assert (odd.score, odd.remark, even.score) == (0, "what odd returns is not what was asked for", 1)
    assert odd.trouble.startswith("IndexError: index 0 is out of bounds")
    assert "IndexError" not in (tmp_path / "out" / exercise / "feedback" / "ada.html").read_text()
    assert "The judge failed here" in (tmp_path / "out" / exercise / "summary.html").read_text()


def test_a_broken_solution_stops_the_run(fake, exercise, monkeypatch, known, tmp_path, hand_in, right):
    hand_in(tmp_path / "in", "ada", right.values())
    broken = core.Task("double", "", 1, lambda rng: [core.Case({"x": np.ones(2)})], lambda x: x.no, (), library="numpy")
    known(monkeypatch, [broken])
    with pytest.raises(RuntimeError, match="the solution of double fails"):
        grading.grade(tmp_path / "in", tmp_path / "out")


def test_a_message_of_a_child_is_read_strictly(exercise):
    made = grading._exercise(exercise, 0)
    task, cases = made.tasks["double"], made.cases["double"]

    def message(*trees):
        body = b"".join(wire.pack(tree) for tree in trees)
        return wire.HEAD.pack(wire.MAGIC, 0, len(body)) + body

    good = vars(call(task.solution, cases[0].given, task.how))
    outcomes = grading._outcomes(task, cases, message(good, good), 10**6, [])
    assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome]
    extra = good | {"outputs": good["outputs"] | {"more": np.ones(1)}, "given": {"y": np.ones(1)}}
    outcome = grading._outcomes(task, cases, message(extra, good), 10**6, [])[0]
    assert (outcome.outputs.keys(), outcome.given) == ({"result"}, {})
    for forged in (
        message(good),
        message(good, good, good),
        message(good, 3),
        message(good, {"outputs": {}}),
        message(good, good | {"outputs": {"result": 1.0}}),
        message(good, good | {"given": []}),
        message(good, good | {"message": "x" * grading.DESCRIPTION}),
        message(good, good)[:-1],
        b"",
    ):
        with pytest.raises(wire.WireError):
            grading._outcomes(task, cases, forged, 10**6, [])


def test_cells_that_cannot_be_read_are_named_up_to_three(exercise):
    task = grading._exercise(exercise, 0).tasks["double"]
    said = grading._said(task, "missing", [f"code cell {i} is not Python" for i in range(5000)])[1]
    assert said.endswith("(code cell 0 is not Python; code cell 1 is not Python; code cell 2 is not Python; and so on)")
    assert grading._said(task, "missing", ["a", "b", "c"])[1].endswith("(a; b; c)")
    assert grading._said(task, "missing", [])[1] == "double is not defined in the notebook"


@pytest.mark.parametrize("error", ["Leak 0.25 0.75", 3, None, ["x"], "StudentsOwnError"])
def test_no_word_of_a_submission_is_repeated(exercise, error):
    task = grading._exercise(exercise, 0).tasks["double"]
    assert grading._said(task, error, [])[0] == "an error"
    assert "0.25" not in "".join(grading._said(task, error, []))


def test_more_points_than_a_task_has_or_none_at_all_are_never_given(
    fake, exercise, monkeypatch, known, tmp_path, hand_in
):
    hand_in(tmp_path / "in", "ada", ["def double(x):\n    return x"])
    for part, earned in ((7.0, 1), (-3.0, 0), (float("nan"), 0)):
        task = core.Task("double", "", 1, lambda rng: [core.Case({"x": np.ones(2)})], lambda x: x, (), library="numpy")
        monkeypatch.setattr(core.Task, "grade", lambda *_, part=part: core.Score(part, ""))
        known(monkeypatch, [task])
        assert grading.grade(tmp_path / "in", tmp_path / f"out{part}")[exercise][0].total == earned


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be a whole number"),
        (["--exercise", "07_none"], "exercise must be one of .*99_sums, got '07_none'"),
        (["--exercise", "06_never"], "exercise must be one of"),
    ],
)
def test_the_command_says_in_a_sentence_what_does_not_fit(exercise, tmp_path, hand_in, right, options, words):
    hand_in(tmp_path / "in", "ada", right.values())
    result = CliRunner().invoke(app, ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 1
    assert re.search(rf"^course grade: {words}", result.output)
    assert len(result.output.strip().splitlines()) == 1


def test_places_that_do_not_fit_are_refused(exercise, tmp_path, hand_in, right):
    hand_in(tmp_path / "in", "ada", right.values())
    with pytest.raises(ValueError, match="is inside"):
        grading.grade(tmp_path / "in", tmp_path / "in" / "grades")
    with pytest.raises(ValueError, match="is no folder of submissions"):
        grading.grade(tmp_path / "none", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        grading.grade(tmp_path / "in", tmp_path / "file")
    (tmp_path / "other" / "ada").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no notebook of an exercise"):
        grading.grade(tmp_path / "other", tmp_path / "out")


def test_the_command_refuses_without_a_sandbox_and_prints_the_averages_with_one(
    fake, exercise, monkeypatch, tmp_path, hand_in, right
):
    hand_in(tmp_path / "in", "ada", right.values())
    line = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--exercise", exercise, "--seed", "3"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0
    assert re.search(
        rf"{exercise}: 1 students, 6 points\. 1 handed in .*, with [56]\.\d points on average", result.output
    )

    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grading, "grade", stopped)
        result = CliRunner().invoke(app, line)
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.output

    def none(private):
        assert str(tmp_path / "in") in private
        raise sandbox.SandboxError("no sandbox works here (all: no)")

    monkeypatch.setattr(sandbox, "find", none)
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 1
    assert result.output == "course grade: no sandbox works here (all: no)\n"
    assert CliRunner().invoke(app, [*line, "--unsafe"]).exit_code == 0


def test_results_are_written_whole_under_the_students_name(fake, exercise, tmp_path, hand_in, right):
    long = "x" * 240
    for student in (long, "=1+1"):
        hand_in(tmp_path / "in", student, right.values())
    grading.grade(tmp_path / "in", tmp_path / "out")
    stored = [json.loads(file.read_text()) for file in (tmp_path / "out" / exercise / "results").iterdir()]
    assert {one["student"] for one in stored} == {long, "=1+1"}
    assert not [name for name in os.listdir(tmp_path / "out" / exercise) if name.startswith(".")]
    assert "'=1+1," in (tmp_path / "out" / exercise / "grades.csv").read_text()
