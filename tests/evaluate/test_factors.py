"""Factor probes: kinds by accuracy, numbers by R², angles by sine and cosine, all as the probes by themselves."""

import math

import pytest
import torch

from course_utils.evaluate import factor_probes, linear_probe, regression_probe


def draw(n, seed):
    rng = torch.Generator().manual_seed(seed)
    kind, size, hue, lost = (torch.rand(n, generator=rng) for _ in range(4))
    factors = {"kind": (3 * kind).long(), "size": size, "hue": hue, "lost": lost}
    turn = 2 * math.pi * hue
    columns = [*torch.nn.functional.one_hot(factors["kind"], 3).T, size, turn.cos(), turn.sin()]
    noise = 0.05 * torch.randn(n, 6, generator=rng)
    return torch.stack(columns, 1) + noise, factors


TRAIN, TRAIN_FACTORS = draw(400, 0)
TEST, TEST_FACTORS = draw(300, 1)


def test_each_factor_is_scored_by_its_own_probe():
    kept = factor_probes(TRAIN, TRAIN_FACTORS, TEST, TEST_FACTORS)
    assert list(kept) == list(TRAIN_FACTORS)
    kind = linear_probe(TRAIN, TRAIN_FACTORS["kind"], TEST, TEST_FACTORS["kind"], kind="ridge")
    assert kept["kind"] == kind.accuracy > 0.95
    assert kept["size"] == regression_probe(TRAIN, TRAIN_FACTORS["size"], TEST, TEST_FACTORS["size"]).r2 > 0.9


def test_a_factor_that_is_not_there_scores_nothing():
    assert factor_probes(TRAIN, TRAIN_FACTORS, TEST, TEST_FACTORS)["lost"] < 0.05


def test_an_angle_is_read_round_the_circle_where_a_line_cannot():
    assert factor_probes(TRAIN, TRAIN_FACTORS, TEST, TEST_FACTORS)["hue"] > 0.95
    assert factor_probes(TRAIN, TRAIN_FACTORS, TEST, TEST_FACTORS, circular=())["hue"] < 0.8


def test_splits_with_different_factors_are_refused_by_name():
    with pytest.raises(ValueError, match=r"same factors, got \['size'\] and \['hue', 'kind', 'lost', 'size'\]"):
        factor_probes(TRAIN, {"size": TRAIN_FACTORS["size"]}, TEST, TEST_FACTORS)
