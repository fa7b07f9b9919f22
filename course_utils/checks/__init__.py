"""Checks of the exercises that answer at once: `check = Checker("k_means")`, then `check.assign(assign)`."""

from course_utils.checks.core import EXERCISES, Case, Checker, CheckError, Mistake, Score, Task, diagnose, tasks_of

__all__ = ["EXERCISES", "Case", "CheckError", "Checker", "Mistake", "Score", "Task", "diagnose", "tasks_of"]
