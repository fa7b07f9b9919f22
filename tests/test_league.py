"""The league: fair jobs, a table that grows run by run and is never done twice, intervals, and other backends."""

import functools
import math
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from course_utils import league
from course_utils.data import load
from course_utils.methods import REGISTRY
from course_utils.models import ConvEncoder, ViT
from course_utils.views import luminance

SMALL = {"n_train": 120, "n_validation": 60, "n_test": 60}
CHAPTER = Path(__file__).parents[1] / "notebooks" / "02_self_supervised"
TWO_STEPS = {"strategy": "full", "steps": 2, "lr": 1e-3}
quick = functools.partial(league.run, steps=2, batch_size=24, sizes=SMALL, n_jobs=1, progress=False)


@pytest.fixture
def counted(monkeypatch):
    """The runs made, with a measure that only tells what it was asked."""
    calls = []

    def measure(*, device, sizes, **job):
        calls.append((job["row"], job["seed"], job["lr"]))
        values = dict.fromkeys(league.MEASURES, 0.5) | dict.fromkeys(league.COSTS, 1.0)
        return job | values | {"probe_5000": job["seed"] + job["lr"]}

    monkeypatch.setattr(league, "measure", measure)
    return calls


def test_a_run_has_every_setting_measure_and_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(league, "FINE_TUNING", TWO_STEPS)
    results = quick(rows=["raw pixels", "simclr"], seeds=[3], out=tmp_path / "league.csv")
    assert list(results.columns) == [*league.SETTINGS, *league.MEASURES, *league.COSTS]
    assert results["row"].tolist() == ["raw pixels", "simclr"]
    assert results["seed"].tolist() == [3, 3]
    simclr = results.set_index("row").loc["simclr"]
    assert simclr[[*league.MEASURES, *league.COSTS]].notna().all()
    assert simclr["images_per_second"] == pytest.approx(2 * 24 / simclr["seconds"], rel=1e-4)
    pixels = results.set_index("row").loc["raw pixels"]
    assert pixels["rankme"] > 20
    assert math.isnan(pixels["fine_tuned_100"])
    assert pixels["seconds"] == 0


def test_the_table_on_disk_is_the_table_returned(tmp_path):
    results = quick(rows=["PCA"], seeds=[0], out=tmp_path / "league.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "league.csv"), results, check_dtype=False, rtol=1e-4)


def test_a_run_follows_from_its_seed(tmp_path):
    first, second = (
        quick(rows=["rotation"], seeds=[1], out=tmp_path / f"{name}.csv")[league.MEASURES] for name in "ab"
    )
    pd.testing.assert_frame_equal(first, second)


def test_what_was_done_is_kept_and_only_the_rest_is_run(tmp_path, counted):
    out = tmp_path / "league.csv"
    quick(rows=["simclr"], seeds=[0, 1], out=out)
    results = quick(rows=["simclr", "rotation"], seeds=[0, 1, 2], out=out)
    assert len(results) == 6
    assert len(counted) == len(set(counted)) == 6
    assert quick(rows=["rotation"], seeds=[1], out=out)["row"].tolist() == ["rotation"]
    assert len(counted) == 6
    quick(rows=["simclr"], seeds=[0], out=out, steps=3)
    assert len(counted) == 7, "another number of updates is another run"


def test_an_interrupted_league_has_what_was_finished(tmp_path, counted, monkeypatch):
    out, plain = tmp_path / "league.csv", league.measure

    def stops(**job):
        if job["seed"] == 1:
            raise KeyboardInterrupt
        return plain(**job)

    monkeypatch.setattr(league, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        quick(rows=["simclr"], seeds=[0, 1], out=out)
    assert pd.read_csv(out)["seed"].tolist() == [0]
    monkeypatch.setattr(league, "measure", plain)
    assert quick(rows=["simclr"], seeds=[0, 1], out=out)["seed"].tolist() == [0, 1]


def test_a_search_tries_every_rate_for_every_row_that_is_trained(tmp_path, counted):
    results = quick(rows=["PCA", "simclr"], seeds=[0], rates=[0.1, 0.2], split="validation", out=tmp_path / "l.csv")
    assert counted == [("PCA", 0, 0.0), ("simclr", 0, 0.1), ("simclr", 0, 0.2)]
    assert league.best_rates(results) == {"PCA": 0.0, "simclr": 0.2}


@pytest.mark.parametrize("row", league.ROWS)
def test_every_row_has_the_same_encoder_and_images(row):
    """The same network, or the small ViT where the method is one of patches; the same images, as many an update."""
    splits = load("glyphs", **SMALL)
    method = league._make(row, splits)
    batches, per_update = league._batches(method, "glyphs", splits, 0, 24, SMALL)
    frames = batches.shape[1] if row in REGISTRY and REGISTRY[row].trains_on == "clips" else 1
    assert per_update * frames == 24
    if frames == 1:  # and the images are the same, if tinted for colorization
        images = batches if isinstance(batches, torch.Tensor) else batches[0]
        torch.testing.assert_close(luminance(images), splits.train.x, atol=1e-6, rtol=0)
    if row not in ("raw pixels", "PCA"):
        kind = "ViT" if row.endswith("ViT") else getattr(REGISTRY.get(row), "network", ConvEncoder).__name__
        assert type(method.encoder).__name__ == kind
        assert method.encode(splits.test.x[:2]).shape == (2, method.encoder.out_dim)
        fresh = ConvEncoder(1) if kind == "ConvEncoder" else ViT(1)
        assert [p.shape for p in method.encoder.parameters()] == [p.shape for p in fresh.parameters()]


def test_pca_is_scikit_learns_with_as_many_components_as_the_encoder_has_features():
    from sklearn.decomposition import PCA

    splits = load("glyphs", **SMALL)
    features = league._make("PCA", splits).encode(splits.test.x)
    expected = (
        PCA(ConvEncoder(1).out_dim, svd_solver="full")
        .fit(splits.train.x.flatten(1))
        .transform(splits.test.x.flatten(1))
    )
    np.testing.assert_allclose(features.abs(), np.abs(expected), atol=1e-4)


def test_the_rows_that_a_data_set_cannot_train_are_left_out_and_named(capsys, monkeypatch):
    class Colours(REGISTRY["simclr"]):
        trains_on = "colour images"

    monkeypatch.setitem(REGISTRY, "colours", Colours)
    assert league._served("digits", ["PCA", "colours", "simclr"]) == ["PCA", "simclr"]
    assert capsys.readouterr().err == "colours is left out: it trains on colour images, which digits has none of\n"


def test_other_images_of_the_catalogue_are_trained_with_the_same_call(tmp_path):
    results = league.run(
        "digits", rows=["raw pixels", "simclr"], seeds=[0], steps=2, batch_size=32, n_jobs=1, out=tmp_path / "l.csv",
        progress=False,
    )  # fmt: skip
    assert results["probe_5000"].between(0, 1).all()
    assert results["face"].isna().all()


def test_intervals_are_students():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame({"row": ["a"] * 5 + ["b"] * 5, "seed": [*range(5)] * 2, "knn": rng.random(10)})
    summary = league.table(runs).set_index("row")
    for row in "ab":
        values = runs.loc[runs["row"] == row, "knn"]
        expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
        np.testing.assert_allclose(summary.loc[row, ["low", "high"]].astype(float), expected)
        assert summary.loc[row, "seeds"] == 5


def test_a_dask_cluster_takes_the_runs_over_by_joblibs_backend(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"rows": ["PCA", "rotation"], "seeds": [0], "steps": 2, "batch_size": 24, "sizes": SMALL}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        on_dask = league.run(**options, progress=False, out=tmp_path / "dask.csv")
    here = quick(rows=options["rows"], seeds=[0], out=tmp_path / "here.csv")
    pd.testing.assert_frame_equal(on_dask[league.MEASURES], here[league.MEASURES], rtol=1e-3, check_dtype=False)


def test_a_row_that_the_league_has_not_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no row 'simcrl' in the league: it has raw pixels, PCA"):
        quick(rows=["simcrl"], out=tmp_path / "league.csv")


def test_another_table_is_not_overwritten(tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("name,age\nA,3\n")
    with pytest.raises(ValueError, match=r"mine\.csv is not a league's table: its columns are name, age"):
        quick(rows=["PCA"], out=out)
    assert out.read_text() == "name,age\nA,3\n"


def test_the_chosen_rates_are_the_best_of_the_committed_search():
    search = pd.read_csv(CHAPTER / "league_search.csv")
    assert set(search["split"]) == {"validation"}
    assert {row: rate for row, rate in league.best_rates(search).items() if rate} == league.CHOSEN


def test_the_committed_table_is_the_whole_league():
    runs = pd.read_csv(CHAPTER / "league.csv")
    assert set(runs["row"]) == set(league.ROWS)
    assert sorted(zip(runs["row"], runs["seed"], strict=True)) == sorted((r, s) for r in league.ROWS for s in range(5))
    assert runs[["data", "split", "steps", "batch_size"]].drop_duplicates().values.tolist() == [
        ["glyphs", "test", 1200, 64]
    ]
    assert runs.set_index("row")["lr"].to_dict() == {row: league.CHOSEN.get(row, 0.0) for row in league.ROWS}


def test_the_rows_that_are_trained_on_have_ten_seeds():
    more = pd.read_csv(CHAPTER / "league_fine_tuning.csv")
    wanted = [(row, seed) for row in league.FINE_TUNED for seed in range(5, 10)]
    assert sorted(zip(more["row"], more["seed"], strict=True)) == sorted(wanted)
    assert more[["data", "split", "steps", "batch_size"]].drop_duplicates().values.tolist() == [
        ["glyphs", "test", 1200, 64]
    ]
    assert more.set_index("row")["lr"].to_dict() == {row: league.CHOSEN.get(row, 0.0) for row in league.FINE_TUNED}
    assert more["fine_tuned_100"].notna().all()


def test_a_row_trained_again_lies_where_the_committed_table_says():
    """A single run, so the interval is a prediction's: wider by √(n + 1) than the mean's."""
    runs = pd.read_csv(CHAPTER / "league.csv").query("row == 'siamese'")
    again = league.measure(data="glyphs", row="siamese", seed=0, steps=1200, batch_size=64, lr=league.CHOSEN["siamese"])
    for name in ("probe_5000", "probe_100", "knn", "angle", "rankme"):
        seen = runs[name]
        half = stats.t.ppf(0.975, len(seen) - 1) * seen.std() * math.sqrt(1 + 1 / len(seen))
        assert abs(again[name] - seen.mean()) < half, name
