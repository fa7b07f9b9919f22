"""Grade a folder of submissions: every notebook runs in a sandbox, and what it returns is judged here.

The child gets arguments and returns arrays. What is right, what is hidden, and how it is compared stay in this process,
and no text that a submission wrote reaches a page.
"""

import builtins
import contextlib
import hashlib
import inspect
import json
import math
import os
import secrets
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from course_utils.calling import Outcome
from course_utils.checks import core
from course_utils.grading import report, sandbox, submissions, wire

ALLOWANCE = 16 * 2**20  # bytes that a task may return beyond four times what it was given
DESCRIPTION = 2**16  # bytes of the names and shapes of an outcome: more of them cost memory and time to read
SEEDS = 10**15  # more than a submission can try in its time; a spreadsheet keeps all 15 digits
SHOWN_PROBLEMS = 3  # of a notebook, in a remark
JUDGING = threading.Lock()  # solutions share torch's global state
BUILTIN_ERRORS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and name.endswith(("Error", "Exit"))
}


@dataclass(frozen=True)
class TaskResult:
    """One task of one student. score: its points times the part that was earned; remark: why not more.

    state: what became of its process (that of a sandbox.Answer, or "not run"); trouble: for the teacher, where judging
    itself failed.
    """

    name: str
    title: str
    points: float
    score: float
    remark: str
    state: str
    seconds: float
    trouble: str = ""


@dataclass(frozen=True)
class Result:
    """One exercise of one student. problem: why nothing could be run, "" where it could; judge: of what code."""

    student: str
    exercise: str
    seed: int
    digest: str
    judge: str
    problem: str
    seconds: float
    tasks: tuple[TaskResult, ...]

    @property
    def total(self) -> float:
        """The points earned."""
        return round(sum(task.score for task in self.tasks), 2)

    @property
    def maximum(self) -> float:
        """The points there are."""
        return sum(task.points for task in self.tasks)


@dataclass(frozen=True)
class _Exercise:
    """What all submissions of an exercise share: tasks, cases from the seed, and the request without a notebook."""

    name: str
    seed: int
    judge: str
    tasks: dict[str, core.Task]
    cases: dict[str, list[core.Case]]
    asked: list[dict]


def grade(
    folder: str | Path,
    out: str | Path,
    *,
    exercises: Sequence[str] = (),
    jobs: int = 2,
    seed: int | None = None,
    unsafe: bool = False,
) -> dict[str, list[Result]]:
    """Grade the submissions in `folder` and write tables and pages to `out/<exercise>/`; returns results by exercise.

    exercises: names such as `03_k_means`; all that somebody handed in unless given. jobs: how many submissions run at a
    time. seed: of the hidden inputs; drawn unless given, and kept in `out`, so that a second call goes on where the
    first stopped: a result is kept while seed, notebook and checks are the same. unsafe: without a sandbox.

    Raises ValueError for arguments that do not fit, sandbox.SandboxError where no sandbox works.
    """
    folder, out = Path(folder), Path(out)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if seed is not None and not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be a whole number from 0 to {SEEDS - 1}, got {seed}")
    students = submissions.students(folder)
    if folder.resolve() in [out.resolve(), *out.resolve().parents]:
        raise ValueError(f"{out} is inside {folder}: grades are written somewhere else than the submissions")
    names = _names(exercises) or _handed_in(folder, students)
    if not names:
        raise ValueError(f"{folder} holds no notebook of an exercise ({', '.join(core.EXERCISES.values())})")
    private = tuple(str(path.resolve()) for path in (folder, out))
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        seed = _seed(out, seed)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from None
    if not hasattr(os, "fork"):
        raise sandbox.SandboxError("grading starts processes as Linux and macOS do: on Windows, grade inside WSL")
    kind = "unsafe" if unsafe else sandbox.find(private)
    results = {}
    for name in names:
        found = [submissions.read(folder, student, name) for student in students]
        results[name] = _grade_exercise(out / name, _exercise(name, seed), students, found, jobs, kind, private)
        report.write(out / name, results[name], [one for one in found if one is not None])
    return results


def _names(exercises: Sequence[str]) -> list[str]:
    known = {**core.EXERCISES, **{name: name for name in core.EXERCISES.values()}}
    for name in exercises:
        if name not in known:
            raise ValueError(f"exercise must be one of {', '.join(core.EXERCISES.values())}, got {name!r}")
    return list(dict.fromkeys(known[name] for name in exercises))


def _handed_in(folder: Path, students: list[str]) -> list[str]:
    """The exercises of which at least one notebook can be read."""

    def somebody_has(name: str) -> bool:
        found = (submissions.read(folder, student, name) for student in students)
        return any(one is not None and not one.problem for one in found)

    return [name for name in core.EXERCISES.values() if somebody_has(name)]


def _seed(out: Path, seed: int | None) -> int:
    """The seed of this run: the one given, the one that `out` remembers, or a new one; remembered."""
    file = out / "seed.json"
    if seed is None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return int(json.loads(file.read_text())["seed"])
        seed = secrets.randbelow(SEEDS)
    _write(file, json.dumps({"seed": seed}))
    return seed


def _exercise(name: str, seed: int) -> _Exercise:
    """Draw the cases of all tasks, and put what a child is asked into one request."""
    tasks = core.tasks_of(name)
    cases = {task.name: task.graded_cases(seed) for task in tasks.values()}
    asked = []
    for task in tasks.values():
        given = [case.given for case in cases[task.name]]
        limit = ALLOWANCE + 4 * len(wire.pack(given))
        how = asdict(task.how)
        asked.append({"name": task.name, "how": how, "seconds": task.seconds, "limit": limit, "cases": given})
    return _Exercise(name, seed, _judged_by(name), tasks, cases, asked)


def _judged_by(name: str) -> str:
    """A fingerprint of the code that judges an exercise, so that a mended check is applied to everybody."""
    digest = hashlib.sha256(Path(core.__file__).read_bytes())
    for task in core.tasks_of(name).values():
        with contextlib.suppress(OSError, TypeError):
            digest.update(Path(inspect.getsourcefile(task.cases)).read_bytes())
    return digest.hexdigest()


def _grade_exercise(out, exercise, students, found, jobs, kind, private) -> list[Result]:
    """All results of an exercise in the students' order; each is on disk as soon as it is there."""
    (out / "results").mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def one(student: str, submission: submissions.Submission | None) -> Result | None:
        file = out / "results" / f"{submissions.file_name(student)}.json"
        if submission is None:
            submission = submissions.Submission(
                student, exercise.name, problem=f"no notebook {exercise.name}.ipynb was handed in"
            )
        kept = _kept(file, submission, exercise)
        if kept is None:
            try:
                kept = _grade_one(submission, exercise, kind, private, stop)
            except sandbox.SandboxError:  # before it met the submission: a machine that was short of something
                kept = _grade_one(submission, exercise, kind, private, stop)
            if stop.is_set():
                return None
            _write(file, json.dumps(asdict(kept), indent=1))
        return kept

    results = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(one, *who): who[0] for who in zip(students, found, strict=True)}
        shown = os.environ.get("COURSE_PROGRESS") == "0"
        for future in tqdm(as_completed(futures), exercise.name, len(students), unit="submission", disable=shown):
            results[futures[future]] = future.result()
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        sandbox.stop_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[student] for student in students]


def _kept(file: Path, submission, exercise: _Exercise) -> Result | None:
    """The result of an earlier run, if seed, notebook and judge were the same."""
    try:
        stored = json.loads(file.read_text())
        result = Result(**{**stored, "tasks": tuple(TaskResult(**task) for task in stored["tasks"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    now = (exercise.name, exercise.seed, exercise.judge, submission.digest, submission.student)
    before = (result.exercise, result.seed, result.judge, result.digest, result.student)
    return result if now == before and (submission.digest or submission.problem == result.problem) else None


def _grade_one(submission, exercise: _Exercise, kind: str, private, stop: threading.Event) -> Result:
    """Run one submission and judge what came back."""
    start = time.monotonic()
    answers, problems = {}, []
    if not submission.problem:
        request = {"cells": list(submission.cells), "tasks": exercise.asked}
        answers, problems = sandbox.run(request, kind, private=private, stop=stop)
    limits = {task["name"]: task["limit"] for task in exercise.asked}
    results = []
    for task in exercise.tasks.values():
        answer = answers.get(task.name)
        if answer is None:
            score, trouble = core.Score(0.0, submission.problem), ""
        elif answer.state != "done":
            score, trouble = core.Score(0.0, _why(answer.state, task)), ""
        else:
            score, trouble = _judge(task, exercise.cases[task.name], answer.message, limits[task.name], problems)
        part = score.part if math.isfinite(score.part) else 0.0
        state, seconds = (answer.state, answer.seconds) if answer else ("not run", 0.0)
        earned = round(task.points * float(np.clip(part, 0, 1)), 2)
        results.append(TaskResult(task.name, task.title, task.points, earned, score.remark, state, seconds, trouble))
    seconds = round(time.monotonic() - start, 2)
    identity = (submission.student, exercise.name, exercise.seed, submission.digest, exercise.judge)
    return Result(*identity, submission.problem, seconds, tuple(results))


def _why(state: str, task: core.Task) -> str:
    limits = sandbox.Limits()
    memory = f"{limits.memory / 2**30:g} GiB"
    return {
        "time": f"{task.name} takes longer than {task.seconds:g} seconds: look for a loop that does not end",
        "memory": f"{task.name} needs more than {memory} of memory or {limits.processes} processes",
        "output": f"{task.name} returns far more than it should",
        "defining": "what the notebook defines outside of its functions does not come to an end, so nothing could be "
        "called",
        "died": f"{task.name} ends the process that it runs in: it must return its result",
    }[state]


def _judge(task, cases, message: bytes, limit: int, problems: list[str]) -> tuple[core.Score, str]:
    """The score of a task's outcomes, and what went wrong in judging them."""
    try:
        outcomes = _outcomes(task, cases, message, limit, problems)
    except wire.WireError:
        return core.Score(0.0, f"what {task.name} returns cannot be read: return arrays of numbers"), ""
    with JUDGING, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return task.grade(cases, outcomes), ""
        except RuntimeError as error:
            if str(error).startswith("the solution of"):
                raise  # the exercise is broken, for everybody
            return _unjudged(task, error)
        except Exception as error:  # a result that the judge was not written for
            return _unjudged(task, error)


def _unjudged(task, error: Exception) -> tuple[core.Score, str]:
    return core.Score(0.0, f"what {task.name} returns is not what was asked for"), f"{type(error).__name__}: {error}"


def _outcomes(task, cases, message: bytes, limit: int, problems: list[str]) -> list[Outcome]:
    """The outcomes that a child sent, one a case. Raises wire.WireError for anything else."""
    names = [*task.how.returns, *(f"gradient of {name}" for name in task.how.gradients)]
    position, outcomes = wire.HEAD.size, []
    for case in cases:
        end = position + wire.HEAD.size
        head = message[position:end]
        end += wire.size_of(head, limit)
        if wire.HEAD.unpack(head)[1] > DESCRIPTION:
            raise wire.WireError("names and shapes take too much room")
        tree = wire.unpack(message[position:end], limit)
        position = end
        if not isinstance(tree, dict) or tree.keys() != {"outputs", "given", "error", "message"}:
            raise wire.WireError("that is no outcome")
        outputs, given = (_arrays(tree[part], wanted) for part, wanted in (("outputs", names), ("given", case.given)))
        outcomes.append(Outcome(outputs, given, *_said(task, tree["error"], problems)))
    if position != len(message):
        raise wire.WireError("more came than was asked for")
    return outcomes


def _arrays(found, wanted) -> dict[str, np.ndarray]:
    if not isinstance(found, dict) or not all(isinstance(value, np.ndarray) for value in found.values()):
        raise wire.WireError("that is no dict of arrays")
    return {name: value for name, value in found.items() if name in wanted}


def _said(task, error, problems: list[str]) -> tuple[str, str]:
    """An error's kind and a sentence of ours: the submission's own words may hold the hidden inputs."""
    match error:
        case "":
            return "", ""
        case "stub":
            return "stub", f"{task.name} is not written yet, or returns nothing"
        case "missing":
            named = problems[:SHOWN_PROBLEMS] + ["and so on"] * (len(problems) > SHOWN_PROBLEMS)
            return "stub", f"{task.name} is not defined in the notebook" + f" ({'; '.join(named)})" * bool(named)
        case "no gradient":
            wanted = ", ".join(task.how.gradients)
            return "no gradient", f"no gradient flows from its result to {wanted}: keep to torch's operations"
        case "output":
            return "stub", f"{task.name} must return arrays of numbers, and not more than was asked for"
        case _:
            kind = next((known for known in BUILTIN_ERRORS if known == error), "an error")
            return kind, "try it with other sizes and values than the examples have"


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    partial.write_text(text, errors="backslashreplace")
    os.replace(partial, file)
