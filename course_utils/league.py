"""The league: every registered method with the same encoder, images and updates, and what its representation is worth.

A run is one row of the table with one seed, which draws the data, the start and the batches. Runs are independent:
joblib spreads them over the processor's cores or the GPUs, or over whatever backend is chosen around the call, such
as a Dask or Ray cluster. Each finished run is written down at once, and is not done again.
"""

import contextlib
import functools
import inspect
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import joblib
import pandas as pd
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_utils import evaluate
from course_utils.data import Dataset, Split, load
from course_utils.methods import REGISTRY, Autoencoder, Method, Supervised, build
from course_utils.models import ConvAutoencoder, ConvEncoder, ViT
from course_utils.train import fit
from course_utils.views import augment

UNTRAINED = ("raw pixels", "PCA", "random encoder", "random ViT")
REFERENCES = (*UNTRAINED, "autoencoder", "supervised", "supervised ViT")
ROWS = (*REFERENCES, *REGISTRY)
RATES = (1e-3, 2.5e-3, 6e-3, 1.5e-2, 4e-2)  # of a search; the committed one has the last where the fourth was best
SEARCH_SEED = 100  # of none of the league's runs
CHOSEN: dict[str, float] = {  # the best of them on validation: `best_rates` of the committed search
    "autoencoder": 0.04,
    "supervised": 0.04,
    "supervised ViT": 0.0025,
    "barlow_twins": 0.006,
    "byol": 0.006,
    "colorization": 0.0025,
    "cpc": 0.015,
    "deep_cluster": 0.04,
    "denoising": 0.04,
    "dino": 0.04,
    "frame_order": 0.006,
    "i_jepa": 0.001,
    "inpainting": 0.006,
    "jigsaw": 0.04,
    "mae": 0.0025,
    "moco": 0.006,
    "next_frame": 0.006,
    "nnclr": 0.006,
    "relative_position": 0.015,
    "rotation": 0.015,
    "siamese": 0.015,
    "simclr": 0.015,
    "simsiam": 0.0025,
    "super_resolution": 0.006,
    "swav": 0.04,
    "triplet": 0.006,
    "vicreg": 0.015,
    "w_mse": 0.015,
}
# Rows that are also trained on with few labels: the first from scratch, then the three whose probes are best.
FINE_TUNED = ("random encoder", "simclr", "swav", "vicreg")
FINE_TUNING = {"strategy": "full", "steps": 500, "lr": 1e-2}  # each chosen on validation, from three rates
FROM_SCRATCH = {"strategy": "full", "steps": 1000, "lr": 1e-2}
SETTINGS = ["data", "row", "seed", "steps", "batch_size", "lr", "split"]
MEASURES = ["probe_100", "probe_5000", "fine_tuned_100", "knn", "face", "angle"]
MEASURES += ["rankme", "alignment", "uniformity", "collapse"]  # these without labels
COSTS = ["seconds", "images_per_second", "peak_mib"]
FEW, MANY = 100, 5000  # labels
FRAMES = 6  # of a clip: as many clips are given as have the others' number of images


def run(
    data: str = "glyphs",
    *,
    rows: Sequence[str] = ROWS,
    seeds: Iterable[int] = range(5),
    steps: int = 1200,
    batch_size: int = 64,
    rates: Mapping[str, float] | Sequence[float] | None = None,
    split: str = "test",
    out: str | Path = "league.csv",
    n_jobs: int | None = None,
    progress: bool | None = None,
    sizes: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Train and measure every row with every seed, and return the tidy table, one line a run, that is kept in `out`.

    data: any image set of the catalogue. On Glyphs, methods of colour images get the same images in colours that mean
    something, `load("glyphs", colour="angle")`, and methods of clips get Moving Glyphs. rows: names of registered
    methods and of `REFERENCES`. rates: the learning rate of each row, by default `CHOSEN`, or several to try for every
    row, which makes it a search.
    split: "test", or "validation" to choose by. sizes: n_train and the like, for `load`.

    Columns: the settings; probe_100 and probe_5000, the accuracy of a logistic probe with so many labels (the mean of
    three draws of 100); fine_tuned_100, after training on with 100 labels, for the rows of `FINE_TUNED`; knn, of 20
    neighbours among 5,000 labelled examples; face and angle, where the data has these factors, as `factor_probes`
    scores them; rankme, alignment of two views, uniformity and collapse, which need no labels; seconds of training,
    images_per_second, and peak_mib, the memory of the process while it trained.

    n_jobs: runs at a time, by default one a GPU or, without, one a core; inside `joblib.parallel_config(...)` that
    backend takes the runs. An interrupted league goes on where it stopped: runs that `out` already has are kept.

    A row that the data cannot serve (colours or clips where there are none) is left out and named on the terminal.
    Raises ValueError for unknown rows or an `out` that is not a league's table.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise ValueError(f"there is no row {unknown[0]!r} in the league: it has {', '.join(ROWS)}")
    out = Path(out)
    kept = _read(out)
    rows = _served(data, rows)
    common = {"data": data, "steps": steps, "batch_size": batch_size, "split": split}
    jobs = [
        common | {"row": row, "seed": seed, "lr": lr}
        for seed in seeds
        for row in rows
        for lr in (_rates_of(row, rates) if is_trained(row) else [0.0])
    ]
    done = set(kept[SETTINGS].itertuples(index=False, name=None))
    todo = [job for job in jobs if tuple(job[name] for name in SETTINGS) not in done]
    gpus = torch.cuda.device_count()
    tasks = (
        joblib.delayed(measure)(**job, device=f"cuda:{i % gpus}" if gpus else "auto", sizes=sizes)
        for i, job in enumerate(todo)
    )
    pool = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="all")
    if n_jobs is None and pool.n_jobs == 1:  # no backend was chosen around the call
        pool = joblib.Parallel(n_jobs=gpus or -1, return_as="generator_unordered")
    hidden = progress is False or os.environ.get("COURSE_PROGRESS") == "0"
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="league", disable=hidden, file=sys.stderr) as bar:
        for result in pool(tasks):
            kept = pd.concat([kept, pd.DataFrame([result])], ignore_index=True)
            _write(kept, out)
            bar.set_postfix_str(f"{result['row']}: {result['probe_5000']:.3f}", refresh=False)
            bar.update()
    asked = {tuple(job[name] for name in SETTINGS) for job in jobs}
    mine = [key in asked for key in kept[SETTINGS].itertuples(index=False, name=None)]
    return kept[mine].sort_values(SETTINGS).reset_index(drop=True)


def table(results: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Mean and confidence interval of every measure, a line a row and measure: row, measure, mean, low, high, seeds.

    The interval is Student's, over the seeds; it is NaN for a single seed.

    >>> runs = pd.DataFrame({"row": ["a", "a"], "seed": [0, 1], "knn": [0.4, 0.6]})
    >>> table(runs).round(2).to_dict("records")
    [{'row': 'a', 'measure': 'knn', 'mean': 0.5, 'low': -0.77, 'high': 1.77, 'seeds': 2}]
    """
    measures = [name for name in MEASURES + COSTS if name in results]
    long = results.melt(id_vars=["row", "seed"], value_vars=measures, var_name="measure").dropna()
    groups = long.groupby(["row", "measure"], sort=False)["value"]
    summary = groups.agg(mean="mean", spread="sem", seeds="count").reset_index()
    half = stats.t.ppf((1 + confidence) / 2, summary["seeds"] - 1) * summary["spread"]
    summary["low"], summary["high"] = summary["mean"] - half, summary["mean"] + half
    return summary[["row", "measure", "mean", "low", "high", "seeds"]]


def best_rates(search: pd.DataFrame) -> dict[str, float]:
    """For every row of a search, the learning rate with the highest probe_5000.

    >>> best_rates(pd.DataFrame({"row": ["a", "a"], "lr": [0.1, 0.2], "probe_5000": [0.5, 0.4]}))
    {'a': 0.1}
    """
    best = search.loc[search.groupby("row")["probe_5000"].idxmax()]
    return dict(zip(best["row"], best["lr"], strict=True))


def is_trained(row: str) -> bool:
    """Whether the row's encoder is trained at all."""
    return row not in UNTRAINED


def measure(
    *,
    data: str,
    row: str,
    seed: int,
    steps: int,
    batch_size: int,
    lr: float,
    split: str = "test",
    device: str = "auto",
    sizes: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """One run: train `row` with one seed and measure it. The arguments and the answer are `run`'s columns."""
    splits = _splits(data, seed, tuple((sizes or {}).items()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = _make(row, splits)
    batches, per_update = _batches(method, data, splits, seed, batch_size, sizes)
    settings = {"data": data, "row": row, "seed": seed, "steps": steps, "batch_size": batch_size, "lr": lr}
    cost = dict.fromkeys(COSTS, 0.0)
    if is_trained(row):
        _forget_peak(device)
        start = time.perf_counter()
        fit(method, batches, steps=steps, batch_size=per_update, lr=lr, seed=seed, device=device, progress=False)
        seconds = time.perf_counter() - start
        cost = {"seconds": seconds, "images_per_second": steps * batch_size / seconds, "peak_mib": _peak_mib(device)}
    return settings | {"split": split} | _worth(row, method, splits, getattr(splits, split), seed) | cost


def sized_view(splits: Dataset):
    """The league's view: the course's, at 5/7 of the images' height, which halves the cost of a step."""
    return functools.partial(augment, size=max(8, 4 * round(splits.train.x.shape[2] * 5 / 28)))


@functools.lru_cache(maxsize=1)
def _splits(data: str, seed: int, sizes: tuple[tuple[str, int], ...]) -> Dataset:
    """A process makes one seed's run after run, and draws its data once."""
    return load(data, seed=seed, **dict(sizes))


class _Fixed(Method):
    """A representation that is not trained, under the methods' interface."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder


class _Projection(nn.Module):
    """Principal components of flattened images."""

    def __init__(self, x: Tensor, dim: int):
        super().__init__()
        pca = PCA(min(dim, *x.flatten(1).shape), svd_solver="covariance_eigh").fit(x.flatten(1).numpy())
        self.register_buffer("mean", torch.as_tensor(pca.mean_))
        self.register_buffer("components", torch.as_tensor(pca.components_))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.mean) @ self.components.T


def _make(row: str, splits: Dataset) -> Method:
    """The method of a row for images like those of `splits`, with the league's views where it takes any."""
    x = splits.train.x
    channels, size = x.shape[1], x.shape[2]
    if row in REGISTRY:
        images = x.unsqueeze(1) if REGISTRY[row].trains_on == "clips" else x
        view = getattr(inspect.signature(REGISTRY[row]).parameters.get("view"), "default", None)
        sized = view is not None and "size" in inspect.signature(view).parameters
        view = {"view": functools.partial(view, **sized_view(splits).keywords)} if sized else {}
        return build(row, images, **view)
    encoder = ViT(channels, size=size) if row.endswith("ViT") else ConvEncoder(channels)
    if row == "raw pixels":
        return _Fixed(nn.Flatten())
    if row == "PCA":
        return _Fixed(_Projection(x, encoder.out_dim))
    if row.startswith("random"):
        return _Fixed(encoder)
    if row == "autoencoder":
        return Autoencoder(ConvAutoencoder(encoder, size=size, width=8))  # the decoder of the methods that restore
    return Supervised(encoder, n_classes=len(splits.class_names), view=sized_view(splits))


def _batches(method: Method, data: str, splits: Dataset, seed: int, batch_size: int, sizes):
    """What the method trains on, and how many of them make `batch_size` images."""
    if isinstance(method, Supervised):
        return (splits.train.x, splits.train.y), batch_size
    if method.trains_on == "colour images" and splits.train.x.shape[1] == 1:  # the same pictures, in telling colours
        return load(data, seed=seed, colour="angle", **(sizes or {})).train.x, batch_size
    if method.trains_on == "clips":
        n = len(splits.train) // FRAMES
        clips = load("moving_glyphs", seed=seed, frames=FRAMES, n_train=n, n_validation=1, n_test=1).train.x
        return clips, batch_size // FRAMES
    return splits.train.x, batch_size


def _served(data: str, rows: Sequence[str]) -> list[str]:
    """The rows that the data can train."""
    if data == "glyphs":
        return list(rows)
    colour = load(data).train.x.shape[1] == 3
    able = {"images": True, "colour images": colour, "clips": False}
    served = [row for row in rows if row not in REGISTRY or able[REGISTRY[row].trains_on]]
    for row in rows:
        if row not in served:
            print(
                f"{row} is left out: it trains on {REGISTRY[row].trains_on}, which {data} has none of", file=sys.stderr
            )
    return served


def _worth(row: str, method: Method, splits: Dataset, held: Split, seed: int) -> dict[str, float]:
    many = splits.train.take(min(MANY, len(splits.train)), seed=seed)
    a, b = method.encode(many.x), method.encode(held.x)
    few = evaluate.label_efficiency(a, many.y, b, held.y, budgets=[min(FEW, len(many))], repeats=3, seed=seed)
    known = [name for name in ("face", "angle") if name in many.factors]
    kept = evaluate.factor_probes(
        a, {name: many.factors[name] for name in known}, b, {name: held.factors[name] for name in known}
    )
    rng = torch.Generator().manual_seed(seed)
    worth = {
        "probe_100": few["accuracy"].mean(),
        "probe_5000": evaluate.linear_probe(a, many.y, b, held.y, seed=seed).accuracy,
        "fine_tuned_100": _fine_tuned(method, splits, held, seed) if row in FINE_TUNED else float("nan"),
        "knn": evaluate.knn_accuracy(a, many.y, b, held.y),
        "rankme": evaluate.rankme(b),
        "alignment": evaluate.alignment(*(method.encode(augment(held.x, rng)) for _ in range(2))),
        "uniformity": evaluate.uniformity(b),
        "collapse": evaluate.collapse(b),
    }
    return {name: (worth | kept).get(name, float("nan")) for name in MEASURES}


def _fine_tuned(method: Method, splits: Dataset, held: Split, seed: int) -> float:
    """Accuracy after training on with few labels, and views as large as the images: smaller ones do harm here."""
    few = splits.train.take(min(FEW, len(splits.train)), seed=seed)
    recipe = FROM_SCRATCH if isinstance(method, _Fixed) else FINE_TUNING
    tuned = evaluate.fine_tune(
        method.encoder,
        few.x,
        few.y,
        n_classes=len(splits.class_names),
        view=augment,
        seed=seed,
        progress=False,
        **recipe,
    )
    return (tuned.predict(held.x).argmax(1) == held.y).float().mean().item()


def _rates_of(row: str, rates: Mapping[str, float] | Sequence[float] | None) -> list[float]:
    if rates is None:
        rates = CHOSEN
    return [rates.get(row, 1.2e-2)] if isinstance(rates, Mapping) else list(rates)


def _read(out: Path) -> pd.DataFrame:
    columns = [*SETTINGS, *MEASURES, *COSTS]
    if not out.exists():
        return pd.DataFrame(columns=columns)
    kept = pd.read_csv(out)
    if list(kept.columns) != columns:
        raise ValueError(f"{out} is not a league's table: its columns are {', '.join(kept.columns)}")
    return kept


def _write(results: pd.DataFrame, out: Path) -> None:
    partial = out.with_name(out.name + ".partial")
    results.to_csv(partial, index=False, float_format="%.6g")
    os.replace(partial, out)


def _forget_peak(device: str) -> None:
    """Let the peak of memory count from here, where the system can (Linux and CUDA)."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif os.path.exists("/proc/self/clear_refs"):
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def _peak_mib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**10
    return float("nan")
