"""Stands in for course_utils.checks where submissions run: everything there is, and does nothing."""

import sys
import types

NAME = "course_utils.checks"


class CheckError(AssertionError):
    """Never raised here."""


class Checker:
    """Takes any check and says nothing.

    >>> Checker("k_means").assign(len) is None
    True
    """

    def __init__(self, exercise: str):
        self.exercise = exercise

    def __getattr__(self, name: str):
        return lambda *arguments, **named: None


def install() -> None:
    """Put the stand-in where imports look for the checks."""
    module = types.ModuleType(NAME, __doc__)
    module.Checker, module.CheckError = Checker, CheckError
    sys.modules[NAME] = module
