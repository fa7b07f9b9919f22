"""How good generated examples are, seen through the features of an encoder that has to be named beside the number."""

import torch
from torch import Tensor

from course_utils.evaluate._inputs import as_features


def frechet_distance(real, fake) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, equation 6).

        d² = ‖m − m_w‖² + tr(C + C_w − 2 (C C_w)^½)

    real: (N, D), fake: (M, D), floating point, N and M at least 2; the result is d², as is usual. It is 0 for equal
    means and covariances, whatever else differs. Finite sets give more than the distance of what they are drawn from,
    the more so the smaller they are: compare only sets of the same size, in features of the same encoder.

    Raises ValueError for shapes that do not fit or values that are not finite, TypeError for other dtypes.

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))  # means 3 apart, the same spread
    9.0
    """
    real = as_features(real, "real", at_least=2).double()
    fake = as_features(fake, "fake", at_least=2, like=real)
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    # with A'A = C and B'B = C_w the eigenvalues of C C_w are the squared singular values of A B'
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (real, fake))
    if max(len(a), len(b)) > a.shape[1]:
        a, b = (torch.linalg.qr(x).R for x in (a, b))
    together = torch.linalg.matrix_norm(a @ b.T, ord="nuc")
    return max((shift + a.square().sum() + b.square().sum() - 2 * together).item(), 0.0)


def precision_recall(real, fake, *, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated examples (Kynkäänniemi et al. 2019, equations 1 and 2, algorithm 1).

    real: (N, D), fake: (M, D), floating point, both more than k rows. A set's manifold is the union of balls around its
    points, each reaching to the point's k-th nearest neighbour in the set. Precision is the part of the generated
    examples inside the manifold of the real ones, recall the part of the real ones inside that of the generated ones.

    Raises ValueError for shapes that do not fit, values that are not finite, or k outside 1 … rows − 1; TypeError for
    features that are not floating point.

    >>> real, fake = torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([[0.4], [0.6], [0.5]])
    >>> precision_recall(real, fake, k=1)  # what is made is likely, and no real point is near it
    (1.0, 0.0)
    """
    real = as_features(real, "real")
    fake = as_features(fake, "fake", like=real)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k must be between 1 and {min(len(real), len(fake)) - 1}, one less than the rows, got {k}")
    return _inside(fake, real, k), _inside(real, fake, k)


def _inside(points: Tensor, manifold: Tensor, k: int, *, rows: int = 1024) -> float:
    """The part of points that lie in a ball around a point of the manifold that reaches its k-th neighbour."""
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # a point's distance to itself is 0
    radius = torch.cat([torch.cdist(x, manifold, **exact).kthvalue(k + 1).values for x in manifold.split(rows)])
    inside = [(torch.cdist(x, manifold, **exact) <= radius).any(1) for x in points.split(rows)]
    return torch.cat(inside).double().mean().item()
