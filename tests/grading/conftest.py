"""A small exercise that is graded in seconds, and the means to hand something in for it."""

import json
import sys
import types

import numpy as np
import pytest

from course_utils.checks import core
from course_utils.checks.core import Case, Mistake, Score, Task
from course_utils.grading import sandbox

EXERCISE = "99_sums"
RIGHT = {
    "double": "def double(x):\n    return 2 * x",
    "row_means": "import torch\ndef row_means(x):\n    return x.mean(1)",
    "embed": "def embed(images):\n    return images.reshape(len(images), -1)",
}


def doubled(rng):
    return [Case({"x": rng.normal(size=size)}) for size in (3, 5)]


def rows(rng):
    return [Case({"x": rng.normal(size=(3, 4)).astype("float32")})]


def pictures(rng):
    labels = rng.integers(0, 2, 40)
    return [Case({"images": rng.normal(size=(40, 2, 3)) + labels[:, None, None]}, {"labels": labels})]


def nearest(case, outputs):
    """Half of the points for telling the two kinds apart by chance, all for 95 %."""
    features, labels = outputs["result"], case.hidden["labels"]
    means = [features[labels == kind].mean(0) for kind in (0, 1)]
    found = np.argmin([np.square(features - mean).sum(1) for mean in means], axis=0)
    right = float((found == labels).mean())
    return Score(float(np.clip((right - 0.6) / 0.3, 0, 1)), f"{right:.0%} of the hidden pictures are told apart")


def shaped(case, outputs):
    features = outputs["result"]
    return None if features.ndim == 2 and len(features) == 40 else "one row an image is wanted"


TASKS = [
    Task(
        "double",
        "twice as much",
        1,
        doubled,
        lambda x: 2 * x,
        (Mistake("that is the square", lambda x: x * x),),
        library="numpy",
        seconds=2.0,
    ),
    Task(
        "row_means",
        "the mean of each row",
        2,
        rows,
        lambda x: x.mean(1),
        (Mistake("that is the mean of each column", lambda x: x.mean(0)),),
        gradients=("x",),
    ),
    Task("embed", "features", 3, pictures, lambda x: x, (), library="numpy", judge=shaped, score=nearest),
]


def put_exercise(monkeypatch, tasks, short="sums", name=EXERCISE):
    module = types.ModuleType(f"course_utils.checks.{short}")
    module.TASKS = tasks
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(core.EXERCISES, short, name)


@pytest.fixture
def exercise(monkeypatch):
    """The exercise is known under its name."""
    put_exercise(monkeypatch, TASKS)
    return EXERCISE


@pytest.fixture(scope="session")
def right():
    """The right code of each task."""
    return RIGHT


@pytest.fixture(scope="session")
def hand_in():
    """Writes a notebook of the given cells for a student."""

    def write(folder, student, cells, name=EXERCISE):
        place = folder / student
        place.mkdir(parents=True, exist_ok=True)
        cells = [{"cell_type": "code", "source": cell, "outputs": [], "metadata": {}} for cell in cells]
        text = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
        (place / f"{name}.ipynb").write_text(text)

    return write


@pytest.fixture(scope="session")
def known():
    """Makes an exercise of tasks known while a test's monkeypatch lasts."""
    return put_exercise


@pytest.fixture(scope="session")
def boxed():
    """The kind of sandbox that works on this machine; the test is skipped where none does."""
    try:
        return sandbox.find()
    except sandbox.SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
