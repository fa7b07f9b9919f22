"""The course's main job on real input: SimCLR's notebook runs on MNIST by changing one name."""

from pathlib import Path

import pytest

from course_utils.notebooks import run

SIMCLR = Path(__file__).parents[2] / "notebooks" / "02_self_supervised" / "04_simclr.ipynb"


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_simclr_runs_on_mnist_and_reports_its_claims_without_asserting_them():
    before = SIMCLR.read_bytes()
    result = run(SIMCLR, data="mnist")
    assert result.succeeded, str(result)
    values = {claim["text"]: claim["value"] for claim in result.claims if not claim["asserted"]}
    assert values["SimCLR, probe with 5,000 labels"] >= 0.95
    assert values["supervised minus SimCLR, 5,000 labels"] < 0.04
    assert SIMCLR.read_bytes() == before
