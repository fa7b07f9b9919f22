"""What a check says: passed, the mistake that explains all cases, or what can be seen without knowing the mistake."""

import numpy as np
import pytest

from course_utils.calling import call
from course_utils.checks import core
from course_utils.checks.core import Case, Checker, CheckError, Mistake, Score, Task, diagnose


def cases(rng):
    return [Case({"x": rng.normal(size=(3, 2)), "scale": 2.0}), Case({"x": rng.normal(size=(1, 4)), "scale": -1.0})]


def in_place(x, scale):
    x *= scale
    return x.sum(1)


MISTAKES = (
    Mistake("the sums are of the columns", lambda x, scale: scale * x.sum(0)),
    Mistake("the scale is missing", lambda x, scale: x.sum(1)),
    Mistake("the argument is changed", in_place),
    Mistake("the sum is rounded", lambda x, scale: (scale * x.sum(1)).round().long()),
    Mistake("there is no scale there", lambda x, scale: x[scale]),
)


def task(**changes):
    solution = changes.pop("solution", lambda x, scale: scale * x.sum(1))
    return Task("row_sums", "sum the rows", 3, cases, solution, MISTAKES, **changes)


def hint(function, of=None):
    of = of or task()
    given = cases(np.random.default_rng(5))
    return diagnose(of, given, [call(function, case.given, of.how) for case in given])


@pytest.mark.parametrize("right", [lambda x, s: s * x.sum(1), lambda x, s: (x * s) @ x.new_ones(x.shape[1])])
def test_right_ways_pass(right):
    assert hint(right) is None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_known_mistake_is_called_by_its_name(mistake):
    assert hint(mistake.solution) == mistake.hint


def test_a_mistake_must_explain_every_case():
    def sometimes(x, scale):  # the scale is missing in the first case only
        return x.sum(1) if scale == 2 else scale * x.sum(1)

    assert "other values than it should (first at position (0,))" in hint(sometimes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x, s: s * x.sum(1, keepdim=True), "result must have shape (3,), got (3, 1)"),
        (lambda x, s: s * x.sum(1) > 0, "result must be of type float64, got bool"),
        (lambda x, s: s * x.sum(1) / 0, "result holds NaN or infinite values"),
        (lambda x, s: 1 / 0, "row_sums stops with ZeroDivisionError: division by zero"),
        (None, "row_sums must be a function, got NoneType"),
        (lambda x, s: None, "row_sums returns nothing"),
        (lambda x, s: (s * x.sum(1), x.zero_())[0], "changes its argument x in place"),
    ],
)
def test_what_can_be_seen_without_knowing_the_mistake(wrong, said):
    assert said in hint(wrong)


def test_no_answer_is_ever_in_a_hint():
    right = task().solution
    numbers = [
        number for case in cases(np.random.default_rng(5)) for number in right(case.given["x"], case.given["scale"])
    ]
    said = hint(lambda x, scale: scale * x.sum(1) + 1)
    assert not any(f"{number:.2f}"[:4] in said for number in numbers)


def test_a_judge_replaces_the_comparison_and_work_in_place_is_still_seen():
    even = task(judge=lambda case, outputs: None if outputs["result"] % 2 == 0 else "it is odd")
    assert hint(lambda x, scale: 4, even) is None
    assert hint(lambda x, scale: 3, even) == "it is odd"
    assert "in place" in hint(lambda x, scale: (4, x.zero_())[0], even)


def test_a_grade_is_all_or_nothing_or_the_mean_score_with_the_remark_of_the_worst_case():
    given = task().graded_cases(7)
    outcomes = [call(task().solution, case.given, task().how) for case in given]
    assert task().grade(given, outcomes) == Score(1.0, "passed")
    stubs = [call(lambda x, s: None, case.given, task().how) for case in given]
    assert task().grade(given, stubs).part == 0
    scored = task(
        score=lambda case, outputs: Score(0.5 if len(outputs["result"]) == 3 else 0.9, str(case.given["scale"]))
    )
    assert scored.grade(given, outcomes) == Score(pytest.approx(0.7), "2.0")
    assert scored.grade(given, stubs).part == 0


def test_graded_cases_come_from_the_seed_and_may_differ_from_the_public_ones():
    one, same, other = (task().graded_cases(seed)[0].given["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert task(graded=lambda rng: [Case({"x": rng.normal(size=1)})]).graded_cases(0)[0].given["x"].shape == (1,)


def test_a_solution_that_fails_is_the_authors_fault_and_said_so():
    with pytest.raises(RuntimeError, match="the solution of row_sums fails: ZeroDivisionError"):
        hint(lambda x, s: s * x.sum(1), task(solution=lambda x, s: 1 / 0))


# --- the student's side


@pytest.fixture
def check(monkeypatch):
    monkeypatch.setattr(core, "tasks_of", lambda exercise: {"row_sums": task(), "other": task()})
    return Checker("any")


def test_a_check_that_passes_says_public_and_no_more(check, capsys):
    check.row_sums(task().solution)
    assert capsys.readouterr().out == "row_sums: public checks passed ✓\n"


def test_a_check_that_fails_raises_one_sentence_that_a_notebook_shows_without_a_stack(check):
    with pytest.raises(CheckError, match=r"^row_sums: the scale is missing$") as caught:
        check.row_sums(lambda x, s: x.sum(1))
    assert caught.value._render_traceback_() == ["row_sums: the scale is missing"]


def test_progress_shows_what_stands_what_does_not_and_what_was_not_tried(check, capsys):
    check.row_sums(task().solution)
    check.progress()
    assert (
        "1 of 2 tasks pass their public checks\n✓ row_sums: sum the rows (3 points)\n· other" in capsys.readouterr().out
    )
    with pytest.raises(CheckError):
        check.row_sums(lambda x, s: None)
    check.progress()
    assert "0 of 2 tasks pass their public checks\n✗ row_sums" in capsys.readouterr().out


def test_a_check_that_is_not_there_is_named_with_those_that_are(check):
    with pytest.raises(AttributeError, match="there is no check 'rows'; there are row_sums, other"):
        check.rows(None)
    assert dir(check) == ["other", "progress", "row_sums"]


def test_an_exercise_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"exercise must be one of contrastive, .*, got 'nothing'"):
        core.tasks_of("nothing")
