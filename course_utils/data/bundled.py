"""The small real sets that scikit-learn carries: there on every machine, with no download.

All are split 60 / 20 / 20 by seed, stratified by class. scikit-learn is imported on first use.
"""

from dataclasses import replace

import torch

from course_utils.data.splits import cut
from course_utils.data.types import DataCard, Dataset, Split

DIGITS = DataCard(
    title="Digits: 1,797 handwritten digits of 8×8 pixels",
    kind="real",
    source="scikit-learn's load_digits; the test part of UCI's Optical Recognition of Handwritten Digits",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Alpaydin and Kaynak, 1998, doi:10.24432/C50P49",
    note="pixels count the ink in 4×4 blocks, 0 to 16, here divided by 16",
)
BREAST_CANCER = DataCard(
    title="Breast Cancer Wisconsin (Diagnostic): 569 tumours, 30 measurements of cell nuclei",
    kind="real",
    source="scikit-learn's load_breast_cancer; UCI Machine Learning Repository",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Wolberg, Mangasarian, Street and Street, 1993, doi:10.24432/C5DW2B",
)
WINE = DataCard(
    title="Wine: 178 wines of three cultivars, 13 chemical measurements",
    kind="real",
    source="scikit-learn's load_wine; UCI Machine Learning Repository",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Aeberhard and Forina, 1992, doi:10.24432/C5PC7J",
)
IRIS = DataCard(
    title="Iris: 150 flowers of three species, 4 lengths in centimetres",
    kind="real",
    source="scikit-learn's load_iris; UCI Machine Learning Repository",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Fisher, Annals of Eugenics 7, 1936, doi:10.24432/C56C76",
)


def digits(*, seed: int) -> Dataset:
    """Handwritten digits: `x` (N, 1, 8, 8) float32 in [0, 1], `y` (N,) int64.

    >>> digits(seed=0)
    digits (real): 1,079 / 359 / 359 train / validation / test of 1×8×8, 10 classes
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _dataset("digits", bunch.images[:, None] / 16, bunch, DIGITS, seed)


def breast_cancer(*, seed: int) -> Dataset:
    """Tumours, malignant or benign: `x` (N, 30) float32 as measured, `y` (N,) int64. `card.note` names the columns.

    >>> breast_cancer(seed=0).class_names
    ('malignant', 'benign')
    """
    from sklearn.datasets import load_breast_cancer

    return _table("breast_cancer", load_breast_cancer(), BREAST_CANCER, seed)


def wine(*, seed: int) -> Dataset:
    """Wines of three cultivars: `x` (N, 13) float32 as measured, `y` (N,) int64. `card.note` names the columns.

    >>> wine(seed=0).train.x.shape
    torch.Size([106, 13])
    """
    from sklearn.datasets import load_wine

    return _table("wine", load_wine(), WINE, seed)


def iris(*, seed: int) -> Dataset:
    """Flowers of three species: `x` (N, 4) float32 in centimetres, `y` (N,) int64. `card.note` names the columns.

    >>> iris(seed=0)
    iris (real): 90 / 30 / 30 train / validation / test of 4, 3 classes
    """
    from sklearn.datasets import load_iris

    return _table("iris", load_iris(), IRIS, seed)


def _table(name: str, bunch, card: DataCard, seed: int) -> Dataset:
    card = replace(card, note=f"columns: {', '.join(map(str, bunch.feature_names))}")
    return _dataset(name, bunch.data, bunch, card, seed)


def _dataset(name: str, x, bunch, card: DataCard, seed: int) -> Dataset:
    whole = Split(torch.tensor(x, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.int64))
    fifth = round(len(whole) / 5)
    test, validation, train = cut(whole, [fifth, fifth], seed=seed)
    return Dataset(name, train, validation, test, tuple(map(str, bunch.target_names)), card)
