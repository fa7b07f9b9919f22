"""How healthy a representation is, measured without labels."""

import math

import torch
import torch.nn.functional as F

from course_utils.evaluate._inputs import as_features


def rankme(features, *, eps: float = 1e-7) -> float:
    """Effective rank of features (Garrido et al. 2023, RankMe), between 1 and min(N, D).

    The exponential of the entropy of the singular values σ of the (N, D) features, which are not centred:

        exp(−Σₖ pₖ log pₖ),   pₖ = σₖ / ‖σ‖₁ + ε

    Rotating or rescaling the features changes nothing. It is about 1 when all lie on one line through the origin (the
    ε adds about 16 · 10⁻⁷ for every further dimension). Computed in float64. The paper takes N = 25,600.

    Raises ValueError for other shapes, values that are not finite or features that are all zero; TypeError for
    integers.

    >>> round(rankme(torch.eye(5)), 3), round(rankme(torch.ones(4, 3)), 3)
    (5.0, 1.0)
    """
    singular = torch.linalg.svdvals(as_features(features, "features").double())
    if singular.sum() == 0:
        raise ValueError("features are all zero: their effective rank is undefined")
    p = singular / singular.sum() + eps
    return (-(p * p.log()).sum()).exp().item()


def alignment(z1, z2, *, alpha: float = 2) -> float:
    """How far apart two views of the same example lie (Wang & Isola 2020, the alignment loss): 0 when they coincide.

    z1, z2: (N, D) floating point; row i of each comes from the same example. The paper's features lie on the unit
    sphere, so rows are normalised here. Returns the mean of ‖z1ᵢ − z2ᵢ‖^alpha, at most 2^alpha.

    Raises ValueError for unequal shapes, values that are not finite or alpha ≤ 0; TypeError for integers.

    >>> alignment(torch.eye(3), torch.eye(3)), round(alignment(torch.eye(3), -torch.eye(3)), 4)
    (0.0, 4.0)
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    z1 = as_features(z1, "z1")
    z2 = as_features(z2, "z2", like=z1)
    if len(z1) != len(z2):
        raise ValueError(f"z1 and z2 must have one row an example, got {len(z1)} and {len(z2)} rows")
    distance = (F.normalize(z1.double(), dim=1) - F.normalize(z2.double(), dim=1)).norm(dim=1)
    return (distance**alpha).mean().item()


def uniformity(z, *, t: float = 2, chunk_size: int = 1024) -> float:
    """How evenly features cover the sphere (Wang & Isola 2020, the uniformity loss): lower is more even, 0 collapsed.

    z: (N, D) floating point, N ≥ 2; rows are normalised here, for the paper's features lie on the unit sphere. Over
    all pairs of distinct examples,

        log mean_{i<j} exp(−t ‖zᵢ − zⱼ‖²)

    exactly, `chunk_size` rows at a time, so that memory grows with N and not N².

    Raises ValueError for fewer than 2 rows, values that are not finite, t ≤ 0 or chunk_size < 1; TypeError for
    integers.

    >>> round(uniformity(torch.eye(4)), 4)  # orthogonal rows: ‖zᵢ − zⱼ‖² = 2 for every pair
    -4.0
    """
    if not t > 0:
        raise ValueError(f"t must be positive, got {t}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    z = F.normalize(as_features(z, "z", at_least=2), dim=1)
    n = len(z)
    total = torch.tensor(-torch.inf, dtype=torch.float64)  # log of the sum so far
    for start in range(0, n - 1, chunk_size):
        similarity = z[start : start + chunk_size] @ z[start:].T  # pairs with an earlier chunk are counted there
        earlier = torch.ones_like(similarity, dtype=torch.bool).tril_()  # itself, and pairs counted once already
        exponent = similarity.clamp_(max=1).sub_(1).mul_(2 * t).masked_fill_(earlier, -torch.inf)
        total = torch.logaddexp(total, exponent.flatten().logsumexp(0).double().cpu())
    return total.item() - math.log(n * (n - 1) / 2)


def collapse(features) -> float:
    """How far features are from collapse (Chen & He 2021, SimSiam, section 4.1): 0 collapsed to a point, 1 spread out.

    features: (N, D) floating point. The standard deviation of every dimension of the l2-normalised rows, averaged and
    multiplied by √D: 1 is reached when the rows are spread over the sphere evenly in every dimension, and 0 only when
    all point the same way.

    Raises ValueError for other shapes or values that are not finite; TypeError for integers.

    >>> collapse(torch.ones(10, 4)), round(collapse(torch.cat([torch.eye(4), -torch.eye(4)])), 4)
    (0.0, 1.0)
    """
    z = F.normalize(as_features(features, "features").double(), dim=1)
    return (z.std(0, correction=0).mean() * math.sqrt(z.shape[1])).item()


def cka(features, other) -> float:
    """Linear centred kernel alignment of two representations of the same examples (Kornblith et al. 2019, section 3).

    features: (N, D), other: (N, E), floating point; row i of each is the same example. With X, Y their centred columns,

        CKA = ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F),

    between 0 (no direction of one follows any of the other) and 1 (equal up to rotation and scale). Computed in
    float64. Few examples with many features look alike whatever they are: take N well above D and E.

    Raises ValueError for other shapes, unequal numbers of rows, values that are not finite or features that are all
    constant; TypeError for integers.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
    >>> round(cka(x, 3 * x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])), 6)
    1.0
    """
    x = as_features(features, "features").double()
    y = as_features(other, "other").double()
    if len(x) != len(y):
        raise ValueError(f"features and other must have one row an example, got {len(x)} and {len(y)} rows")
    x, y = x - x.mean(0), y - y.mean(0)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    if scale == 0:
        raise ValueError("all features are constant: their alignment is undefined")
    return ((y.T @ x).square().sum() / scale).item()
