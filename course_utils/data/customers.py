"""Customers of shops: generated ones of five kinds whose kind is known, and 440 real ones of a wholesaler.

The columns of the generated set are as a shop's database has them: days, euros and shares side by side, the positive
ones with a long tail. So distances between rows mean nothing until the columns have been brought to one scale.
"""

from numbers import Integral

import numpy as np
import torch

from course_utils.data.splits import cut
from course_utils.data.store import DataError, RemoteFile, fetch
from course_utils.data.types import DataCard, Dataset, Split

COLUMNS = (
    "days since last visit",
    "visits a year",
    "euros a visit",
    "items a visit",
    "share of items returned",
    "share bought online",
    "share bought at reduced price",
    "euros a year",
    "days a customer",
)
# kind: its share of the customers, and the medians of the first seven columns
KINDS = {
    "weekly families": (0.26, (4, 50, 75, 32, 0.02, 0.15, 0.25)),
    "lunch buyers": (0.22, (3, 110, 9, 3, 0.005, 0.05, 0.12)),
    "bargain hunters": (0.20, (14, 24, 32, 14, 0.04, 0.25, 0.65)),
    "online shoppers": (0.17, (15, 22, 90, 8, 0.18, 0.85, 0.25)),
    "lapsed customers": (0.15, (150, 5, 40, 12, 0.04, 0.30, 0.25)),
}
SPREAD = (0.7, 0.45, 0.6, 0.6, 0.8, 0.9, 0.8)  # standard deviations of logarithms, and of log-odds of shares
SPENDING = ("Fresh", "Milk", "Grocery", "Frozen", "Detergents_Paper", "Delicassen")

CUSTOMERS = DataCard(
    title="Customers: nine columns of a shop's records, five kinds of customer",
    kind="generated",
    source="drawn from log-normal and logit-normal distributions around the medians of each kind",
    licence="free to use",
    citation="after the recency, frequency and monetary value of Hughes, Strategic Database Marketing, 1994",
    note=f"columns: {', '.join(COLUMNS)}; the last but one is visits times euros a visit, the last says nothing",
)
WHOLESALE = DataCard(
    title="Wholesale customers: 440 clients of a wholesale distributor in Portugal, what they spend a year",
    kind="real",
    source="UCI Machine Learning Repository, in $COURSE_DATA only",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Cardoso, 2013, doi:10.24432/C5030X",
    note=f"columns, in monetary units: {', '.join(SPENDING)}; factor: region (0 Lisbon, 1 Oporto, 2 other)",
)


def customers(*, seed: int = 0, n_train: int = 1_200, n_validation: int = 400, n_test: int = 400) -> Dataset:
    """Generate the set: `x` (N, 9) float32 as recorded, all positive, `y` (N,) int64 the kind, to be hidden.

    The three splits are independent draws from one distribution. `card.note` names the columns.

    Raises ValueError for a split that is not a whole number of at least one.

    >>> customers(n_train=100)
    customers (generated): 100 / 400 / 400 train / validation / test of 9, 5 classes
    """
    splits = [
        _draw(n, torch.Generator().manual_seed(3 * seed + part))
        for part, n in enumerate((n_train, n_validation, n_test))
    ]
    return Dataset("customers", *splits, class_names=tuple(KINDS), card=CUSTOMERS)


def _draw(n: int, rng: torch.Generator) -> Split:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"every split needs a whole number of customers, at least one, got {n!r}")
    shares, medians = (torch.tensor(values, dtype=torch.float64) for values in zip(*KINDS.values(), strict=True))
    kind = torch.multinomial(shares, n, replacement=True, generator=rng)
    noise = torch.randn(n, 7, generator=rng, dtype=torch.float64) * torch.tensor(SPREAD, dtype=torch.float64)
    positive = medians[kind, :4] * noise[:, :4].exp()
    parts = torch.sigmoid(torch.logit(medians[kind, 4:]) + noise[:, 4:])
    year = positive[:, 1] * positive[:, 2]
    since = 1200 * (0.6 * torch.randn(n, generator=rng, dtype=torch.float64)).exp()
    return Split(torch.column_stack([positive, parts, year, since]).float(), kind)


def wholesale_files() -> list[RemoteFile]:
    """The one file of the wholesale customers; it has no download."""
    return [RemoteFile("customers/Wholesale customers data.csv")]


def wholesale(*, seed: int) -> Dataset:
    """Real clients: `x` (N, 6) float32, spent a year on six kinds of goods; `y` (N,) int64 their channel.

    Raises DataError when the file is not there or is another.
    """
    (path,) = fetch("wholesale", wholesale_files())
    with path.open(encoding="utf-8") as file:
        header = file.readline().strip().split(",")
        if header != ["Channel", "Region", *SPENDING]:
            raise DataError(f"{path} is not the file of UCI: its columns are {', '.join(header)}")
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", ndmin=2))
    if table.shape != (440, 8):
        raise DataError(f"{path} is not the file of UCI: it has {len(table)} rows, 440 were expected")
    channel, region = (table[:, column].long() - 1 for column in (0, 1))
    whole = Split(table[:, 2:].float(), channel, {"region": region})
    test, validation, train = cut(whole, [88, 88], seed=seed)
    names = ("hotel, restaurant or café", "retail")
    return Dataset("wholesale", train, validation, test, names, WHOLESALE)
