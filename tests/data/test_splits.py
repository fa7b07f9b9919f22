"""Splits are disjoint, stratified and the same for the same seed; sizes asked for are class-balanced."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.data.splits import cut, finish, stratified_order
from course_utils.data.types import DataCard, Dataset, Split

CARD = DataCard("a set", "generated", "this test", "none")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 10))
def test_every_prefix_holds_each_class_in_its_share(counts, seed):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = stratified_order(labels, seed=seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for n in range(len(labels) + 1):
        had = labels[order[:n]].bincount(minlength=len(counts))
        share = torch.tensor(counts) * n / len(labels)
        # one for the class itself, and its share of one for every class
        assert ((had - share).abs() <= 1 + torch.tensor(counts) * len(counts) / len(labels)).all()


def test_classes_that_divide_evenly_are_cut_exactly():
    labels = torch.tensor([2] * 60 + [7] * 30)
    first, second, rest = cut(Split(torch.arange(90.0), labels), [30, 30], seed=4)
    for part in (first, second, rest):
        assert part.y.bincount()[[2, 7]].tolist() == [20, 10]


@pytest.mark.parametrize("labels", [None, torch.arange(50) % 3])
def test_parts_are_disjoint_cover_the_whole_and_keep_their_labels(labels):
    whole = Split(torch.arange(50.0), labels)
    parts = cut(whole, [5, 11], seed=0)
    assert [len(part) for part in parts] == [5, 11, 34]
    assert torch.cat([part.x for part in parts]).sort().values.tolist() == list(range(50))
    if labels is not None:
        assert all(torch.equal(part.y, part.x.long() % 3) for part in parts)


def test_the_seed_decides_the_cut():
    whole = Split(torch.arange(50.0), torch.arange(50) % 3)
    first, again, other = (cut(whole, [25], seed=seed)[0].x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first.sort().values, other.sort().values)


@pytest.fixture
def stored():
    pixels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    part = Split(pixels, (torch.arange(256) > 200).long(), {"place": torch.arange(256)})
    return Dataset("a_set", part, part, part, ("low", "high"), CARD)


def test_pixels_become_float32_from_0_to_1_exactly(stored):
    x = finish(stored, seed=0).test.x
    assert x.dtype == torch.float32
    assert torch.equal(x[:, 0, 0, 0], torch.arange(256) / 255)


def test_measurements_are_kept_as_they_are():
    table = Split(torch.tensor([[-3.5, 1e6]]))
    stored = Dataset("a_table", table, table, table, (), CARD)
    assert torch.equal(finish(stored, seed=0).train.x, table.x)


def test_sizes_give_class_balanced_subsets_that_keep_rows_together(stored):
    splits = finish(stored, seed=3, n_train=40, n_test=256)
    assert splits.train.y.bincount().tolist() == [20, 20]
    assert torch.equal((splits.train.x[:, 0, 0, 0] * 255).round().long(), splits.train.factors["place"])
    assert len(splits.validation) == len(splits.test) == 256
    assert torch.equal(finish(stored, seed=3, n_train=40).train.x, splits.train.x)
    assert not torch.equal(finish(stored, seed=4, n_train=40).train.x, splits.train.x)


@pytest.mark.parametrize("n", [0, -1, 257, 1.5, "10"])
def test_a_size_out_of_range_is_refused_by_name(stored, n):
    with pytest.raises(ValueError, match=r"n_validation must be a whole number from 1 to 256 for 'a_set', got"):
        finish(stored, seed=0, n_validation=n)
