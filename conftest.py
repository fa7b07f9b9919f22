"""Shared by the tests and by nbval: what is skipped, and which outputs of a notebook differ between machines."""

import os

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
os.environ["COURSE_PROGRESS"] = "0"


@pytest.fixture(autouse=True)
def same_start():
    """Networks are drawn from torch's global generator: a test's must not depend on which tests ran before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if os.environ.get("COURSE_DATA"):
        return
    skip = pytest.mark.skip(reason="needs real data: set COURSE_DATA to a folder that has it")
    for item in items:
        if item.get_closest_marker("real_data"):
            item.add_marker(skip)


def pytest_collectstart(collector):
    """nbval compares the plain text of an output; the measured value of a claim stands in the types below."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "image/png", "application/vnd.course.claim+json")
