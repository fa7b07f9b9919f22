"""The course beside lightly and scikit-learn, on one machine in one run: `make bench`. README.md says what is compared.

The harness (`measure`, `Record`, `table`) knows nothing of any library; the comparisons below it know both sides.
"""

import argparse
import copy
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import sklearn.cluster
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.cluster import KMeans
from course_utils.data import load
from course_utils.evaluate import knn_scores
from course_utils.losses import nt_xent
from course_utils.methods import REGISTRY, SimCLR
from course_utils.models import ConvEncoder
from course_utils.precision import choose_precision, has_native_bf16
from course_utils.train import fit
from course_utils.views import augment

RESULTS = Path(__file__).with_name("results.md")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, TEMPERATURE, WORKERS = 256, 0.3, 2


# --- the harness ------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Seconds on the wall, and of processor time in this process and all it has started."""

    wall: float
    cpu: float


class Spread(NamedTuple):
    """A median and the range it comes from."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Record:
    """What one comparison cost in every round, and how many times faster it is meant to be (None: no target)."""

    name: str
    ours: tuple[Cost, ...]
    theirs: tuple[Cost, ...]
    reach: float | None = None

    def ratio(self, clock: str) -> Spread:
        """How many times less we take by "wall" or "cpu": theirs / ours within each round, then over the rounds."""
        rounds = zip(self.ours, self.theirs, strict=True)
        return spread(getattr(theirs, clock) / getattr(ours, clock) for ours, theirs in rounds)

    @property
    def reached(self) -> bool:
        """Whether the medians of both ratios are at least `reach`."""
        return self.reach is None or min(self.ratio("wall").median, self.ratio("cpu").median) >= self.reach


def now() -> Cost:
    """The clocks. Children count while they live (psutil) and after they were waited for (os.times)."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    gone = os.times()
    living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    children = gone.children_user + gone.children_system + sum(times.user + times.system for times in living)
    return Cost(time.perf_counter(), time.process_time() + children)


def cost(call: Callable[[], object], repeat: int = 1, clock: Callable[[], Cost] = now) -> Cost:
    """What one call costs: the mean of `repeat`, for calls that take less than a tick of the processor clock."""
    before = clock()
    for _ in range(repeat):
        call()
    return Cost(*((after - start) / repeat for start, after in zip(before, clock(), strict=True)))


def measure(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    repeat: int = 1,
    reach: float | None = None,
    clock: Callable[[], Cost] = now,
) -> Record:
    """Call both once to warm up, then both in every round, taking turns in who goes first."""
    ours(), theirs()
    mine, other = [], []
    sides = [(ours, mine), (theirs, other)]
    for _ in range(rounds):
        for call, seen in sides:
            seen.append(cost(call, repeat, clock))
        sides.reverse()
    return Record(name, tuple(mine), tuple(other), reach)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def comparison_table(records: Iterable[Record], ours: str = "course", theirs: str = "lightly") -> str:
    """Median milliseconds of both, and the ratios with their ranges; ✓ or ✗ says whether both medians reach."""
    head = ["", f"{ours}, ms", f"{theirs}, ms", "times less wall time", "times less processor time", "reach"]
    return table(head, [_row(record) for record in records])


def _row(record: Record) -> list[object]:
    milliseconds = [f"{1e3 * spread(c.wall for c in side).median:.1f}" for side in (record.ours, record.theirs)]
    reach = "" if record.reach is None else f"{record.reach:g} {'✓' if record.reached else '✗'}"
    return [record.name, *milliseconds, record.ratio("wall"), record.ratio("cpu"), reach]


# --- the comparisons --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How much is measured: a full run, or a quick one that only shows that everything works."""

    rounds: int = 7
    batches: int = 4
    pairs: tuple[int, ...] = (256, 1024, 4096)
    encoders: tuple[int, ...] = (8, 32)
    bank: int = 20_000
    queries: int = 5_000
    steps: int = 20
    widths: tuple[int, ...] = (8, 12, 16, 20, 24, 28, 32)
    points: int = 100_000
    glyphs: int = 60_000


QUICK = Size(
    rounds=2,
    batches=2,
    pairs=(256,),
    encoders=(8,),
    bank=4_000,
    queries=500,
    steps=4,
    widths=(8, 12),
    points=5_000,
    glyphs=2_000,
)


def images(size: Size) -> torch.Tensor:
    return load("glyphs", seed=0, n_train=size.batches * BATCH, n_validation=26, n_test=26).train.x


class Pictures(torch.utils.data.Dataset):
    """PIL images in memory, as torchvision's data sets give them; lightly sets the transform."""

    def __init__(self, pictures: list):
        self.pictures, self.transform = pictures, None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int):
        return self.transform(self.pictures[i]), 0


def lightly_loader(x: torch.Tensor) -> torch.utils.data.DataLoader:
    """lightly's two views of PIL images, at the strengths of `augment`; an epoch is exactly the images of `x`.

    The workers stay between epochs and have nothing left to prepare when an epoch ends, so they neither start up
    inside a measurement nor work ahead while the other side is measured.
    """
    from lightly.data import LightlyDataset
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image

    transform = SimCLRTransform(
        input_size=x.shape[-1],
        min_scale=0.4,
        cj_prob=1.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.0,
        cj_hue=0.0,
        rr_prob=1.0,
        rr_degrees=30,
        hf_prob=0.0,
        random_gray_scale=0.0,
        normalize=None,
    )
    pictures = LightlyDataset.from_torch_dataset(Pictures([to_pil_image(image) for image in x]), transform=transform)
    return torch.utils.data.DataLoader(
        pictures, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )


def compare_augment(size: Size) -> list[Record]:
    """Two views of every image. What is drawn is random, so the check is that both give the same kind of pictures."""
    x, rng = images(size).to(DEVICE), torch.Generator(DEVICE).manual_seed(0)
    loader = lightly_loader(x.cpu())

    def ours():
        return [(augment(batch, rng), augment(batch, rng)) for batch in x.split(BATCH)]

    def theirs():
        return [(x1.to(DEVICE), x2.to(DEVICE)) for (x1, x2), *_ in loader]

    one, other = (torch.cat([view for pair in views for view in pair]) for views in (ours(), theirs()))
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert min(one.min(), other.min()) >= 0
    torch.testing.assert_close(one.mean(), other.mean(), rtol=0, atol=0.05)
    torch.testing.assert_close(one.std(), other.std(), rtol=0, atol=0.05)
    name = f"two views of {size.batches} × {BATCH} images"
    return [measure(name, ours, theirs, rounds=size.rounds, reach=8)]


def compare_step(size: Size) -> list[Record]:
    """SimCLR from pictures to updated weights: our `fit` beside the loop of lightly's documentation."""
    from lightly.loss import NTXentLoss

    x = images(size)
    loader, criterion = lightly_loader(x), NTXentLoss(temperature=TEMPERATURE)
    records = []
    for width in size.encoders:
        torch.manual_seed(0)
        method = SimCLR(ConvEncoder(1, width), temperature=TEMPERATURE).to(DEVICE)
        model = copy.deepcopy(nn.Sequential(method.encoder, method.head))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
        check_equal_simclr(method, model, criterion, x[:64].to(DEVICE))

        def ours(method=method):
            fit(method, x, steps=size.batches, batch_size=BATCH, device=DEVICE, progress=False)

        def theirs(model=model, optimizer=optimizer):
            for (x1, x2), *_ in loader:
                loss = criterion(model(x1.to(DEVICE)), model(x2.to(DEVICE)))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        name = f"{size.batches} steps of SimCLR, encoder of width {width}"
        reach = 3 if choose_precision(method, DEVICE) == "bf16-mixed" else 1.2
        records.append(measure(name, ours, theirs, rounds=size.rounds, reach=reach))
    return records


def check_equal_simclr(method: SimCLR, model: nn.Module, criterion: nn.Module, x: torch.Tensor) -> None:
    """In float64, on the same views and with both in one batch, the losses and their gradients are equal."""
    method, model, x = copy.deepcopy(method).double(), copy.deepcopy(model).double(), x.double()
    loss, _ = method.training_loss(x, torch.Generator(x.device).manual_seed(0))
    rng = torch.Generator(x.device).manual_seed(0)
    expected = criterion(*model(torch.cat([augment(x, rng), augment(x, rng)])).chunk(2))
    gradient = torch.autograd.grad(loss, list(method.encoder.parameters()))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, list(model[0].parameters())))


def compare_nt_xent(size: Size) -> list[Record]:
    """The loss of n pairs in 128 dimensions, and its gradient."""
    from lightly.loss import NTXentLoss

    criterion = NTXentLoss(temperature=TEMPERATURE)
    records = []
    for n in size.pairs:
        rng = torch.Generator().manual_seed(n)
        z1, z2 = (torch.randn(n, 128, generator=rng).to(DEVICE).requires_grad_() for _ in range(2))

        def ours(z1=z1, z2=z2):
            loss = nt_xent(z1, z2, temperature=TEMPERATURE)
            return loss, *torch.autograd.grad(loss, (z1, z2))

        def theirs(z1=z1, z2=z2):
            loss = criterion(z1, z2)
            return loss, *torch.autograd.grad(loss, (z1, z2))

        for mine, expected in zip(ours(), theirs(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        repeat = max(1, 2048 // n)
        records.append(measure(f"NT-Xent, n = {n}", ours, theirs, rounds=size.rounds, repeat=repeat, reach=1.4))
    return records


def compare_knn(size: Size) -> list[Record]:
    """k = 20 neighbours of noisy class centres; lightly asks a validation batch at a time, as its classifier does."""
    from lightly.utils.benchmarking import knn_predict

    classes, k, temperature = 26, 20, 0.1
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 128, generator=rng)
    labels, hidden = (torch.randint(classes, (n,), generator=rng) for n in (size.bank, size.queries))
    bank, queries = ((centres[y] + 4 * torch.randn(len(y), 128, generator=rng)).to(DEVICE) for y in (labels, hidden))
    labels = labels.to(DEVICE)

    def ours():
        return knn_scores(bank, labels, queries, k=k, temperature=temperature).argmax(1)

    def theirs():
        normalised = F.normalize(bank, dim=1).T.contiguous()
        ranked = [
            knn_predict(F.normalize(part, dim=1), normalised, labels, classes, knn_k=k, knn_t=temperature)
            for part in queries.split(BATCH)
        ]
        return torch.cat(ranked)[:, 0]

    agreement = (ours() == theirs()).double().mean().item()
    assert agreement >= 0.999, f"the two classifiers agree on {agreement:.2%} only"
    name = f"k-NN, {size.bank:,} × 128, {size.queries:,} queries"
    return [measure(name, ours, theirs, rounds=size.rounds, reach=1)]


COMPARISONS = {"augment": compare_augment, "step": compare_step, "nt_xent": compare_nt_xent, "knn": compare_knn}
WITHOUT_LIGHTLY = ("k_means", "methods", "layouts")


# --- beside scikit-learn ---------------------------------------------------------------------------------------------


def compare_k_means(size: Size) -> list[Record]:
    """Lloyd's algorithm from the same k points of the data, until the centres stand still by the usual tolerance."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(size.points, 64)).astype(np.float32)
    centres = rng.normal(size=(50, 64))[rng.integers(50, size=size.points)].astype(np.float32)
    pictures = load("glyphs", seed=0, n_train=size.glyphs, n_validation=26, n_test=26).train.x
    sets = [
        ("clusters", noise + centres, 50),
        ("clusters that overlap", noise + 0.35 * centres, 50),
        ("no clusters", noise, 50),
        ("Glyphs", pictures.flatten(1).numpy(), 10),
    ]
    records = []
    for kind, x, k in sets:
        options = {"init": x[rng.permutation(len(x))[:k]], "n_init": 1}

        def ours(x=x, k=k, options=options):
            return KMeans(k, **options).fit(x)

        def theirs(x=x, k=k, options=options):
            return sklearn.cluster.KMeans(k, **options).fit(x)

        one, other = ours(), theirs()
        assert abs(one.inertia_ / other.inertia_ - 1) <= 1e-3, f"{kind}: inertia {one.inertia_}, {other.inertia_}"
        name = f"{len(x):,} × {x.shape[1]}, k = {k}, {kind}; {one.n_iter_} and {other.n_iter_} iterations"
        records.append(measure(name, ours, theirs, rounds=size.rounds, reach=1))
    return records


# --- the course alone -------------------------------------------------------------------------------------------------


def compare_layouts(size: Size) -> list[Record]:
    """A forward and backward pass of `ConvEncoder` in float32: channels_last beside contiguous tensors."""
    records = []
    for width in size.widths:
        contiguous = ConvEncoder(1, width).to(DEVICE)
        last = copy.deepcopy(contiguous).to(memory_format=torch.channels_last)
        x = torch.rand(2 * BATCH, 1, 28, 28, device=DEVICE)
        calls = [
            lambda encoder=encoder, x=x: encoder(x).square().sum().backward()  # the layout follows the weights
            for encoder in (last, contiguous)
        ]
        records.append(measure(f"width {width}", *calls, rounds=size.rounds))
    return records


def step_rates(name: str, size: Size) -> Spread:
    """Images a second of `fit`, step by step, after the first three steps."""
    stamps = []
    fit(
        build(name),
        images(size),
        steps=size.steps + 3,
        batch_size=BATCH,
        device=DEVICE,
        progress=False,
        on_step=lambda step, method: stamps.append(now().wall),
    )
    return spread(BATCH / (after - before) for before, after in pairwise(stamps[2:]))


def build(name: str):
    return REGISTRY[name](ConvEncoder(1))


def peak_memory(name: str) -> float | None:
    """MiB that training holds at most beyond the loaded libraries; None where the system does not say.

    On a processor it must be called in a process of its own: a peak is never forgotten.
    """
    x = torch.rand(2 * BATCH, 1, 28, 28)
    settings = {"device": DEVICE, "progress": False}
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        fit(build(name), x, steps=3, batch_size=BATCH, **settings)
        return torch.cuda.max_memory_allocated() / 2**20
    fit(build(name), x[:8], steps=1, batch_size=8, **settings)  # loads what the first step loads
    rest = _status("VmRSS")
    fit(build(name), x, steps=3, batch_size=BATCH, **settings)
    peak = _status("VmHWM")
    return None if rest is None or peak is None else peak - rest


def _status(key: str) -> float | None:
    """A figure in MiB of Linux's account of this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:")), None)


def method_table(size: Size) -> str:
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in REGISTRY:
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            memory = alone.submit(peak_memory, name).result()
        rows.append([name, step_rates(name, size), "—" if memory is None else f"{memory:.0f}"])
    return table(["method", "images a second", "peak memory, MiB"], rows)


# --- the report -------------------------------------------------------------------------------------------------------


def machine() -> str:
    """The facts that a time depends on, and nothing that tells one machine from another of its kind."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "processor": f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads",
        "GPU": torch.cuda.get_device_name() if DEVICE == "cuda" else "none",
        "bf16 in hardware": "yes" if has_native_bf16(DEVICE) else "no",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, lightly {_lightly()}",
    }
    return "\n".join(f"* {name}: {value}" for name, value in facts.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _lightly() -> str | None:
    try:
        return importlib.metadata.version("lightly")
    except importlib.metadata.PackageNotFoundError:
        return None


def report(size: Size, only: str | None = None) -> str:
    """Measures and returns the page; each comparison is also printed as soon as it is there."""
    parts = [f"# Results\n\n{machine()}\n\nEach range is over {size.rounds} rounds."]

    def add(title: str, text: str) -> None:
        parts.append(f"## {title}\n\n{text}")
        print(parts[-1], end="\n\n", flush=True)

    records = []
    for name, compare in COMPARISONS.items():
        if only in (None, name):
            found = compare(size)
            print(comparison_table(found), end="\n\n", flush=True)
            records += found
    if records:
        add("Beside lightly", comparison_table(records))
    if only in (None, "k_means"):
        add("k-means beside scikit-learn", comparison_table(compare_k_means(size), theirs="scikit-learn"))
    if only in (None, "methods"):
        add("A step of each method", method_table(size))
    if only in (None, "layouts"):
        add(
            "The encoder in float32, by memory layout",
            comparison_table(compare_layouts(size), "channels_last", "contiguous"),
        )
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the course beside lightly and scikit-learn.")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that everything works")
    parser.add_argument("--only", choices=[*COMPARISONS, *WITHOUT_LIGHTLY], help="one part; results stay unsaved")
    options = parser.parse_args(arguments)
    if options.only not in WITHOUT_LIGHTLY and _lightly() is None:
        sys.exit('lightly is not installed: run `make bench`, or `pip install -c constraints.txt -e ".[bench]"`')
    page = report(QUICK if options.quick else Size(), options.only)
    if not options.quick and options.only is None:
        RESULTS.write_text(page, "utf8")
        print(f"written to {RESULTS.parent.name}/{RESULTS.name}")


if __name__ == "__main__":
    main()
