"""What every task of every exercise keeps. `test_NAME.py` has `RIGHT`: other right ways to write each of its tasks."""

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest

from course_utils.calling import call
from course_utils.checks.core import EXERCISES, PUBLIC_SEED, diagnose, tasks_of

ROOT = Path(__file__).parents[2]
SEEDS = (PUBLIC_SEED, 1, 2026)
TASKS = [(exercise, task) for exercise in EXERCISES for task in tasks_of(exercise).values()]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES)
every_task = pytest.mark.parametrize(
    ("exercise", "task"), TASKS, ids=[f"{exercise}-{task.name}" for exercise, task in TASKS]
)
every_mistake = pytest.mark.parametrize(
    ("task", "mistake"),
    [
        pytest.param(task, mistake, id=f"{task.name}-{i}")
        for _, task in TASKS
        for i, mistake in enumerate(task.mistakes)
    ],
)


def right_ways(exercise):
    path = Path(__file__).with_name(f"test_{exercise}.py")
    spec = importlib.util.spec_from_file_location(f"right_{exercise}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RIGHT


def hint(task, function, seed=PUBLIC_SEED):
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


@pytest.mark.parametrize("seed", SEEDS)
@every_task
def test_the_solution_passes_and_other_right_ways_too(exercise, task, seed):
    others = right_ways(exercise)[task.name]
    random = task.judge is not None
    assert len(others) >= (2 if random else 3)
    for way in (task.solution, *others):
        assert hint(task, way, seed) is None


@pytest.mark.parametrize("seed", SEEDS)
@every_mistake
def test_a_mistake_is_called_by_its_own_name(task, mistake, seed):
    assert hint(task, mistake.solution, seed) == mistake.hint


@every_task
def test_a_task_knows_four_mistakes_whose_hints_are_sentences_of_their_own_without_numbers(exercise, task):
    hints = [mistake.hint for mistake in task.mistakes]
    assert len(hints) == len(set(hints)) >= 4
    assert not [text for text in hints if any(character.isdigit() for character in text) or len(text.split()) < 4]


@every_exercise
def test_an_exercise_is_worth_twenty_points(exercise):
    assert sum(task.points for task in tasks_of(exercise).values()) == 20


@every_exercise
def test_an_exercise_grades_the_quality_of_a_model_on_what_the_model_never_saw(exercise):
    scored = [task for task in tasks_of(exercise).values() if task.score is not None]
    assert scored
    for task in scored:
        for case in task.cases(np.random.default_rng(PUBLIC_SEED)):
            assert not set(case.hidden) & set(case.given)


@every_task
def test_the_cases_come_from_the_seed_alone(exercise, task):
    one, same, other = (list(task.cases(np.random.default_rng(seed))) for seed in (3, 3, 4))
    assert all(_equal(a.given, b.given) for a, b in zip(one, same, strict=True))
    assert not all(_equal(a.given, b.given) for a, b in zip(one, other, strict=True))


def _equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@every_exercise
def test_in_the_untouched_student_version_every_task_is_still_to_be_written(exercise):
    from course_utils.grading import definitions

    path = ROOT / "notebooks/05_exercises" / f"{EXERCISES[exercise]}.ipynb"
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    module = ModuleType("submission")
    definitions.run(definitions.find(cells), module)  # an experiment's function may fail for want of its data
    for task in tasks_of(exercise).values():
        assert hint(task, vars(module)[task.name]) == f"{task.name} is not written yet"
