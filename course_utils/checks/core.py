"""What a task of an exercise is, and the check that answers at once: passed, or the mistake by its name.

A task holds a right solution and solutions with known mistakes. A student's function is called with seeded arguments;
where it does not give what the right one gives, but what one of the others gives, its hint is the answer. The right
result is never shown. Grading uses the same tasks with other seeds, and calls the function in another process.
"""

import html
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import NamedTuple

import numpy as np

from course_utils.calling import Call, Outcome, call

EXERCISES = {
    "contrastive": "01_contrastive_learning",
    "autoencoder": "02_autoencoder",
    "k_means": "03_k_means",
    "language_model": "04_language_model",
    "vae": "05_variational_autoencoder",
}
PUBLIC_SEED = 0


class Case(NamedTuple):
    """given: the arguments by name, in their order: arrays, numbers, strings. hidden: what only the judge knows."""

    given: dict
    hidden: dict = {}  # noqa: RUF012


class Mistake(NamedTuple):
    """A solution that is wrong in a known way, and the sentence that helps who made it."""

    hint: str
    solution: Callable


class Score(NamedTuple):
    """part: of the task's points, 0 to 1. remark: what is to be said, without the hidden inputs or the answer."""

    part: float
    remark: str


@dataclass(frozen=True)
class Task:
    """One thing to write. name: of the function, and of its check. title: what it is, in a few words.

    cases: takes a numpy Generator and returns the calls to make (the same shapes may come with any content).
    solution: a right one. mistakes: known wrong ones, each with its hint. rtol, atol: of the comparison.
    judge: for results that are not one thing (random ones, say): takes a Case and the outputs and returns a hint, or
    None if they are right; it replaces the comparison with the solution.
    score: for the quality of a model, asked when it is graded: takes a Case and the outputs and returns a Score.
    graded: the cases that are graded where they differ from the public ones (more images, real training).
    seconds: how long all graded cases may take together.
    """

    name: str
    title: str
    points: int
    cases: Callable[[np.random.Generator], Iterable[Case]]
    solution: Callable
    mistakes: tuple[Mistake, ...]
    returns: tuple[str, ...] = ("result",)
    library: str = "torch"
    gradients: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-5
    judge: Callable[[Case, dict[str, np.ndarray]], str | None] | None = None
    score: Callable[[Case, dict[str, np.ndarray]], Score] | None = None
    graded: Callable[[np.random.Generator], Iterable[Case]] | None = None
    seconds: float = 10.0

    @property
    def how(self) -> Call:
        """How the function is called."""
        return Call(self.name, self.returns, self.library, self.gradients)

    def graded_cases(self, seed: int) -> list[Case]:
        """The cases of a grading run with this seed."""
        return list((self.graded or self.cases)(np.random.default_rng(seed)))

    def grade(self, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Score:
        """What the outcomes of graded cases are worth: all or nothing, or by `score` the mean over the cases."""
        hint = diagnose(self, cases, outcomes)
        if hint is not None:
            return Score(0.0, hint)
        if self.score is None:
            return Score(1.0, "passed")
        scores = [self.score(case, outcome.outputs) for case, outcome in zip(cases, outcomes, strict=True)]
        worst = min(scores)
        return Score(float(np.clip(np.mean([score.part for score in scores]), 0, 1)), worst.remark)


def diagnose(task: Task, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> str | None:
    """None if all outcomes are right; else the hint of the mistake that explains all of them, or what is to be seen.

    >>> cases = lambda rng: [Case({"x": rng.normal(size=(3, 2))})]
    >>> mistakes = (Mistake("that is the mean of each column", lambda x: x.mean(0)),)
    >>> task = Task("row_means", "the mean of each row", 1, cases, lambda x: x.mean(1), mistakes)
    >>> case = cases(np.random.default_rng(0))[0]
    >>> print(diagnose(task, [case], [call(lambda x: x.sum(1) / 2, case.given, task.how)]))
    None
    >>> diagnose(task, [case], [call(lambda x: x.sum(0) / 3, case.given, task.how)])
    'that is the mean of each column'
    """
    complaints = [_complaint(task, case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]
    first = next((complaint for complaint in complaints if complaint is not None), None)
    if first is None:
        return None
    for outcome in outcomes:
        if outcome.error == "stub":
            return outcome.message
    for mistake in task.mistakes if task.judge is None else ():
        made = [call(mistake.solution, case.given, task.how) for case in cases]
        if all(_same(task, one, other) for one, other in zip(made, outcomes, strict=True)):
            return mistake.hint
    return first


def _complaint(task: Task, case: Case, outcome: Outcome) -> str | None:
    """What can be said about one outcome without knowing the mistake."""
    if outcome.error == "no gradient":
        return outcome.message
    if outcome.error:
        return f"{task.name} stops with {outcome.error}: {outcome.message}"
    changed = [
        name for name, after in outcome.given.items() if not np.array_equal(after, case.given[name], equal_nan=True)
    ]
    for name, output in outcome.outputs.items():
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            return f"{name} holds NaN or infinite values: look for log(0), 0/0, or exp of something large"
    if task.judge is not None:
        return task.judge(case, outcome.outputs) or _in_place(changed)
    expected = call(task.solution, case.given, task.how)
    if expected.error:
        raise RuntimeError(f"the solution of {task.name} fails: {expected.error}: {expected.message}")
    for name, right in expected.outputs.items():
        output = outcome.outputs.get(name)
        if output is None:
            return f"{name} is missing from what {task.name} returns"
        if output.shape != right.shape:
            return f"{name} must have shape {right.shape}, got {output.shape}"
        if output.dtype.kind != right.dtype.kind and "b" + output.dtype.kind not in ("bi", "bu"):
            return f"{name} must be of type {right.dtype}, got {output.dtype}"
        if not _close(task, output, right):
            wrong = ~np.isclose(output, right, rtol=task.rtol, atol=task.atol)
            where = f" (first at position {tuple(int(i) for i in np.argwhere(wrong)[0])})" if output.ndim else ""
            return f"{name} has the right shape and other values than it should{where}: work a tiny case by hand"
    return _in_place(changed)


def _in_place(changed: list[str]) -> str | None:
    if not changed:
        return None
    return (
        f"your function changes its argument {changed[0]} in place: whoever called it still needs it, so work on a copy"
    )


def _close(task: Task, one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=task.rtol, atol=task.atol, equal_nan=True)


def _same(task: Task, one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are alike in results, kinds of numbers, what they did to their arguments, and errors."""
    if one.error or other.error:
        return one.error == other.error
    kinds = [{name: array.dtype.kind for name, array in outcome.outputs.items()} for outcome in (one, other)]
    if kinds[0] != kinds[1] or one.given.keys() != other.given.keys():
        return False
    pairs = [(one.outputs[name], other.outputs[name]) for name in one.outputs]
    pairs += [(one.given[name], other.given[name]) for name in one.given]
    return all(_close(task, *pair) for pair in pairs)


def tasks_of(exercise: str) -> dict[str, Task]:
    """The tasks of an exercise by name, in their order; exercise: its short name or that of its notebook."""
    short = {notebook: name for name, notebook in EXERCISES.items()}.get(exercise, exercise)
    if short not in EXERCISES:
        raise ValueError(f"exercise must be one of {', '.join(EXERCISES)}, got {exercise!r}")
    return {task.name: task for task in importlib.import_module(f"course_utils.checks.{short}").TASKS}


# --- for judges of results that hang on a seed


def first_of(case: Case, now):
    """What the case of the role "first" brought, which is kept for those that follow it in the same thread; or None.

    hidden: "role", and "seen", one dict for all of these cases. now: what this case brings.
    """
    seen = case.hidden["seen"]
    if case.hidden["role"] == "first":
        seen[get_ident()] = now
    return seen.get(get_ident())


def seed_mistake(
    case: Case, values: Sequence[np.ndarray], hints: dict[str, str], *, rtol: float = 0.0, atol: float = 0.0
) -> str | None:
    """None if one seed brings the same values twice, and another seed others; else hints "unseeded" or "one_seed".

    The cases have the roles "first", "again" and "other", as `first_of` has them; of any other case nothing is said.
    """
    if case.hidden.get("role") not in ("first", "again", "other"):
        return None
    first = first_of(case, values)
    if case.hidden["role"] == "first" or first is None:
        return None
    alike = all(
        one.shape == other.shape and np.allclose(one, other, rtol=rtol, atol=atol)
        for one, other in zip(values, first, strict=True)
    )
    if case.hidden["role"] == "again":
        return None if alike else hints["unseeded"]
    return hints["one_seed"] if alike else None


# --- for the student


class CheckError(AssertionError):
    """A check found a mistake; a notebook shows the sentence alone, without a stack of calls."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass
class Checker:
    """The checks of one exercise: `check.NAME(function)` for each task, and `check.progress()`.

    A check prints that the public checks passed, or raises CheckError with a hint. It takes under a second, always
    asks the same, and is not the grade.

    >>> check = Checker("k_means")
    >>> check.assign(lambda x, centers: (x[:, None] - centers).square().sum(2).argmin(1))
    assign: public checks passed ✓
    """

    exercise: str
    _tasks: dict[str, Task] = field(init=False, repr=False)
    _stands: dict[str, bool | None] = field(init=False, repr=False)

    def __post_init__(self):
        self._tasks = tasks_of(self.exercise)
        self._stands = dict.fromkeys(self._tasks)

    def __dir__(self):
        return [*self._tasks, "progress"]

    def __getattr__(self, name: str):
        task = self.__dict__.get("_tasks", {}).get(name)
        if task is None:
            raise AttributeError(f"there is no check {name!r}; there are {', '.join(self.__dict__.get('_tasks', {}))}")
        return lambda function: self._check(task, function)

    def _check(self, task: Task, function) -> None:
        cases = list(task.cases(np.random.default_rng(PUBLIC_SEED)))
        hint = diagnose(task, cases, [call(function, case.given, task.how) for case in cases])
        self._stands[task.name] = hint is None
        if hint is not None:
            raise CheckError(f"{task.name}: {hint}")
        print(f"{task.name}: public checks passed ✓")

    def progress(self) -> None:
        """Show which tasks stand: passed, not yet right, not tried."""
        from IPython import get_ipython
        from IPython.display import display

        marks = {True: "✓", False: "✗", None: "·"}
        rows = [(marks[self._stands[name]], name, task.title, task.points) for name, task in self._tasks.items()]
        done = sum(stands is True for stands in self._stands.values())
        head = f"{done} of {len(rows)} tasks pass their public checks"
        lines = "\n".join(f"{mark} {name}: {title} ({points} points)" for mark, name, title, points in rows)
        if get_ipython() is None or not hasattr(get_ipython(), "kernel"):
            print(f"{head}\n{lines}")
            return
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
        table = f"<p>{head}</p><table><tr><th></th><th>task</th><th></th><th>points</th></tr>{cells}</table>"
        display({"text/plain": f"{head}\n{lines}", "text/html": table}, raw=True)
