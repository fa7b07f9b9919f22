"""Claims: every bound at its edge, one line for every machine, and what other data and other types make of them."""

import json
import math
import operator

import hypothesis.strategies as st
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.claims import CLAIM_MIME, ClaimError, claim

KEEPS = {"at_least": operator.ge, "at_most": operator.le, "above": operator.gt, "below": operator.lt}
SIGNS = {"at_least": "≥", "at_most": "≤", "above": ">", "below": "<"}
EDGES = [-math.inf, -1.0, math.nextafter(0.5, 0), 0.5, math.nextafter(0.5, 1), 2.0, math.inf, math.nan]


def holds(value, **bounds):
    try:
        claim("x", value, **bounds)
    except ClaimError:
        return False
    return True


@pytest.mark.parametrize("bound", KEEPS)
@pytest.mark.parametrize("value", EDGES)
def test_a_claim_holds_when_its_value_keeps_the_bound_to_the_last_digit(value, bound):
    assert holds(value, **{bound: 0.5}) == KEEPS[bound](value, 0.5)


@given(st.floats(), st.dictionaries(st.sampled_from(list(KEEPS)), st.floats(-2, 2), min_size=1))
def test_a_claim_holds_when_every_bound_is_kept(value, bounds):
    assert holds(value, **bounds) == all(KEEPS[name](value, bound) for name, bound in bounds.items())


@pytest.mark.parametrize("bound", KEEPS)
def test_a_bound_of_nought_is_a_bound(bound):
    assert not holds(math.nan, **{bound: 0})
    assert holds(0, at_least=0, at_most=0)


@pytest.mark.parametrize("bound", KEEPS)
def test_nothing_is_claimed_of_a_value_that_is_not_a_number(bound):
    with pytest.raises(ClaimError, match="measured nan"):
        claim("x", math.nan, **{bound: 0.5})


def test_a_claim_that_does_not_hold_is_an_assertion_that_says_both_numbers():
    with pytest.raises(AssertionError, match=r"^probe: wanted ≥ 0\.9 and < 1, measured 0\.89999$"):
        claim("probe", 0.89999, at_least=0.9, below=1)


@pytest.mark.parametrize(("bound", "sign"), SIGNS.items())
def test_outside_a_kernel_the_line_is_printed_with_what_was_measured(bound, sign, capsys):
    claim("probe", 0.5 + 1e-9 * (1 if bound == "above" else -1 if bound == "below" else 0), **{bound: 0.5})
    assert capsys.readouterr().out == f"probe: {sign} 0.5 ✓ (0.5)\n"


@pytest.mark.parametrize("bound", [0.123456789, 1_000_000, 1e-7, -3])
def test_a_bound_is_written_as_it_was_given(bound, capsys):
    claim("x", bound, at_least=bound)
    assert float(capsys.readouterr().out.split()[2]) == bound


@pytest.mark.parametrize(
    "value",
    [
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        np.array(2.0),
        np.array([[2]]),
        torch.tensor(2.0),
        torch.tensor([2], dtype=torch.int32),
        torch.tensor(2.0, dtype=torch.bfloat16),
        torch.tensor(2.0, requires_grad=True),
        pd.Series([2.0]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("error")
def test_one_number_may_come_as_a_number_an_array_or_a_tensor(value):
    assert holds(value, at_least=2, at_most=2)
    assert not holds(value, above=2)


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (True, "bool"),
        (np.True_, "bool"),
        (torch.tensor(True), "Tensor"),
        (None, "NoneType"),
        ("0.5", "str"),
        ([0.5], "list"),
        (1 + 0j, "complex"),
        (np.complex128(1), "complex128"),
        (torch.tensor(1 + 0j), "Tensor"),
        (np.array([0.1, 0.2]), r"ndarray of shape \(2,\)"),
        (torch.ones(2, 1), r"Tensor of shape \(2, 1\)"),
        (pd.Series([0.1, 0.2]), r"Series of shape \(2,\)"),
        (np.array([]), r"ndarray of shape \(0,\)"),
        (10**400, "int"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_not_one_real_number_is_refused_by_its_name(value, came):
    with pytest.raises(TypeError, match=rf"the claim 'probe' needs one number, got {came}_?$"):
        claim("probe", value, at_least=0)


def test_a_claim_without_a_bound_is_refused():
    with pytest.raises(ValueError, match="the claim 'probe' needs a bound: at_least, at_most, above or below"):
        claim("probe", 0.5, data="glyphs")


@pytest.mark.parametrize("value", [0.1, math.nan, math.inf])
def test_other_data_is_reported_and_nothing_is_asserted(value, capsys):
    claim("probe", value, at_least=0.9, data="mnist")
    line = f"probe: reported, not asserted: the bound ≥ 0.9 is about glyphs ({value:.4g})\n"
    assert capsys.readouterr().out == line
    with pytest.raises(ClaimError):
        claim("probe", 0.1, at_least=0.9, data="glyphs")
    with pytest.raises(ClaimError):
        claim("probe", 0.1, at_least=0.9, data="mnist", about="mnist")
    claim("probe", 0.1, at_least=0.9, data="glyphs", about="mnist")


# --- in a kernel


@pytest.fixture(scope="module")
def shown():
    """The output of each claim below, as a kernel sends it and a notebook file keeps it."""
    calls = {
        "plain": 'claim("probe", 0.93512, at_least=0.9, below=1)',
        "again": 'claim("probe", 0.97, at_least=0.9, below=1)',
        "markup": 'claim("<b>5 & \\"6\\"</b>", 2.0, above=1)',
        "other": 'claim("probe", 0.25, at_least=0.9, data="mnist")',
        "infinite": 'claim("x", float("inf"), above=1)',
        "failed": 'claim("probe", 0.1, at_least=0.9)',
    }
    first = new_code_cell("from course_utils.claims import claim")
    notebook = new_notebook(cells=[first, *map(new_code_cell, calls.values())])
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True).execute()
    kept = nbformat.reads(nbformat.writes(notebook), as_version=4)
    return {name: cell.outputs for name, cell in zip(calls, kept.cells[1:], strict=True)}


def only(outputs):
    (output,) = outputs
    assert output.output_type == "display_data"
    return output.data


def test_the_line_of_a_claim_is_the_same_whatever_was_measured_and_the_value_stands_beside_it(shown):
    data, again = only(shown["plain"]), only(shown["again"])
    assert data["text/plain"] == again["text/plain"] == "probe: ≥ 0.9 and < 1 ✓"
    assert "probe: ≥ 0.9 and &lt; 1 ✓" in data["text/html"]
    assert "0.9351" in data["text/html"]
    assert "0.97" in again["text/html"]


def test_a_claim_is_kept_as_a_record(shown):
    assert json.loads(json.dumps(only(shown["plain"])[CLAIM_MIME], allow_nan=False)) == {
        "text": "probe",
        "value": 0.93512,
        "wanted": "≥ 0.9 and < 1",
        "holds": True,
        "asserted": True,
    }
    other = only(shown["other"])
    assert other[CLAIM_MIME] == {
        "text": "probe",
        "value": 0.25,
        "wanted": "≥ 0.9",
        "holds": False,
        "asserted": False,
    }
    assert "✓" not in other["text/plain"]


def test_a_value_that_json_cannot_hold_is_kept_as_null(shown):
    data = only(shown["infinite"])
    assert data[CLAIM_MIME]["value"] is None
    assert data[CLAIM_MIME]["holds"]
    assert "inf" in data["text/html"]


def test_the_text_of_a_claim_is_text_and_no_markup(shown):
    data = only(shown["markup"])
    assert data["text/plain"].startswith('<b>5 & "6"</b>: > 1 ✓')
    assert "&lt;b&gt;5 &amp; &quot;6&quot;&lt;/b&gt;: &gt; 1" in data["text/html"]


def test_a_claim_that_does_not_hold_stops_the_cell_and_shows_nothing_else(shown):
    (output,) = shown["failed"]
    assert (output.ename, output.evalue) == ("ClaimError", "probe: wanted ≥ 0.9, measured 0.1")
