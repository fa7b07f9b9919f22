"""scikit-learn's sets arrive whole, unchanged and split 60 / 20 / 20 within every class."""

import numpy as np
import pytest
import torch
from sklearn import datasets

from course_utils.data import load

NAMES = ("digits", "breast_cancer", "wine", "iris")


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.mark.parametrize("name", NAMES)
def test_the_three_parts_together_are_scikit_learns_set(name):
    splits = load(name, seed=2)
    bunch = getattr(datasets, f"load_{name}")()
    wanted = bunch.data / 16 if name == "digits" else bunch.data
    ours = torch.cat([torch.cat([part.x.flatten(1), part.y[:, None].float()], 1) for part in parts(splits)])
    theirs = np.column_stack([wanted, bunch.target]).astype(np.float32)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert splits.class_names == tuple(map(str, bunch.target_names))


@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_split_60_20_20(name):
    splits = load(name)
    counts = torch.stack([part.y.bincount() for part in parts(splits)])
    share = counts / counts.sum(0)
    assert torch.allclose(share, torch.tensor([[0.6], [0.2], [0.2]]).expand_as(share), atol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(name):
    splits = load(name)
    for part in parts(splits):
        assert part.x.dtype == torch.float32
        assert part.y.dtype == torch.int64
        assert part.factors == {}
    if name == "digits":
        assert splits.train.x.shape[1:] == (1, 8, 8)
        assert (splits.train.x.min(), splits.train.x.max()) == (0, 1)
    else:
        assert len(splits.card.note.removeprefix("columns: ").split(", ")) == splits.train.x.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_split(name):
    first, again, other = (load(name, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)


def test_the_first_rows_are_not_all_of_one_class():
    assert load("iris").train.y[:9].unique().tolist() == [0, 1, 2]
