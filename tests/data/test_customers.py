"""Customers: the seed decides, columns are what they are called, and the kinds are found on one scale, not on many."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from course_utils.data import DataError, load
from course_utils.data.customers import COLUMNS, KINDS, customers


def test_the_seed_decides_everything_and_the_splits_are_other_customers():
    first, again, other = (customers(seed=seed) for seed in (0, 0, 1))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(first, part).x, getattr(again, part).x)
        assert torch.equal(getattr(first, part).y, getattr(again, part).y)
        assert not torch.equal(getattr(first, part).x, getattr(other, part).x)
    assert not torch.isin(first.test.x, first.train.x).all(dim=1).any()


def test_columns_are_what_they_are_called():
    part = customers(n_train=20_000).train
    assert part.x.shape == (20_000, len(COLUMNS))
    assert part.x.dtype == torch.float32
    assert (part.x > 0).all()
    assert (part.x[:, 4:7] < 1).all()
    torch.testing.assert_close(part.x[:, 7], part.x[:, 1] * part.x[:, 2])


def test_kinds_have_their_shares_and_medians():
    part = customers(n_train=50_000).train
    for kind, (share, medians) in enumerate(KINDS.values()):
        rows = part.x[part.y == kind, :7]
        # a share has a standard error under 0.0023, a median's logarithm one of 1.25 * 0.9 / sqrt(7500) = 0.013
        assert abs(len(rows) / 50_000 - share) < 0.012
        np.testing.assert_allclose(rows.median(0).values, medians, rtol=0.07)


def test_the_last_column_says_nothing_of_the_kind():
    part = customers(n_train=20_000).train
    means = torch.stack([part.x[part.y == kind, 8].log().mean() for kind in range(5)])
    assert (means - math.log(1200)).abs().max() < 5 * 0.6 / 3_000**0.5  # five standard errors of the smallest kind


@pytest.mark.parametrize("seed", [0, 1])
def test_raw_columns_mislead_and_one_scale_leads(seed):
    part = customers(seed=seed).train

    def found(x):
        return adjusted_rand_score(part.y, KMeans(5, n_init=10, random_state=0).fit_predict(x))

    assert found(part.x) < 0.2
    assert found(StandardScaler().fit_transform(part.x.log())) > 0.88


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_a_size_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match="every split needs a whole number of customers, at least one, got"):
        customers(n_train=n)


@pytest.mark.real_data
def test_the_wholesale_customers_are_those_of_uci():
    splits = load("wholesale")
    assert str(splits) == "wholesale (real): 264 / 88 / 88 train / validation / test of 6, 2 classes"
    parts = (splits.train, splits.validation, splits.test)
    assert torch.cat([part.y for part in parts]).bincount().tolist() == [298, 142]  # as UCI states
    assert torch.cat([part.factors["region"] for part in parts]).bincount().tolist() == [77, 47, 316]
    rows = torch.cat([part.x for part in parts])
    assert (rows == torch.tensor([12669.0, 9656, 7561, 214, 2674, 1338])).all(1).any()  # the file's first
    assert rows.amax(0).tolist() == [112151, 73498, 92780, 60869, 40827, 47943]  # as UCI states


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", "its columns are a, b"), (None, "it has 1 rows, 440 were expected")],
)
def test_another_file_is_refused(tmp_path, monkeypatch, text, said):
    header = "Channel,Region,Fresh,Milk,Grocery,Frozen,Detergents_Paper,Delicassen\n"
    (tmp_path / "customers").mkdir()
    (tmp_path / "customers" / "Wholesale customers data.csv").write_text(text or header + "1,1,1,1,1,1,1,1\n")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=said):
        load("wholesale")
