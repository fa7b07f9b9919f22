"""Redundancy reduction: views agree, and what keeps them from collapse is asked of the dimensions, not of negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating, check_pairs
from course_utils.precision import full_precision

NOTHING_VARIES = "or nothing varies across the batch"


@full_precision
def barlow_twins(z1: Tensor, z2: Tensor, *, lambda_: float = 5e-3) -> Tensor:
    """The loss of Zbontar et al. 2021 (Barlow Twins), equations 1 and 2.

    z1, z2: (N, D) floating point, N ≥ 2; row i of each comes from the same image. Both are centred along the batch
    here, and C (D, D) is the correlation of dimension i of one with dimension j of the other:

        C_ij = Σ_b z1_bi z2_bj / (√Σ_b z1_bi² √Σ_b z2_bj²),     Σᵢ (1 − C_ii)² + λ Σᵢ Σ_{j≠i} C_ij²

    A dimension that does not vary (norm below 1e-5 after centring) correlates with nothing, so that a collapsed
    representation costs D. The second sum has D − 1 times the terms of the first: λ belongs to D, and the default to
    the paper's 8,192.

    Raises ValueError for unequal shapes, N < 2 or negative λ, and TypeError for anything but floating-point tensors.

    >>> z = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> barlow_twins(z, z).item(), barlow_twins(z, z.flip(1), lambda_=0.5).item()  # C: identity; exchanged
    (0.0, 3.0)
    """
    check_pairs(z1=z1, z2=z2, why=NOTHING_VARIES)
    _check_weights(lambda_=lambda_)
    first, second = (F.normalize(z - z.mean(0), dim=0, eps=1e-5) for z in (z1, z2))
    squares = (first.T @ second - torch.eye(z1.shape[1], device=z1.device)) ** 2
    on = squares.diagonal().sum()
    return on + lambda_ * (squares.sum() - on)


@full_precision
def invariance(z1: Tensor, z2: Tensor) -> Tensor:
    """VICReg's invariance s: the mean squared difference of two views (Bardes et al. 2022, equation 5, over D).

    Equation 5 sums over the dimensions and averages over the batch. The paper's algorithm 1, which its weights 25, 25
    and 1 go with, averages over both, and so does this: equation 5 is D times it.

    >>> invariance(torch.zeros(2, 4), torch.ones(2, 4)).item()
    1.0
    """
    check_pairs(z1=z1, z2=z2, at_least=1, why="or there is nothing to compare")
    return ((z1 - z2) ** 2).mean()


@full_precision
def variance(z: Tensor, *, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """VICReg's variance v: how far the standard deviations fall short of γ (Bardes et al. 2022, equations 1 and 2).

    z: (N, D), N ≥ 2. The mean over dimensions of max(0, γ − √(Var(zʲ) + ε)), with Var unbiased: 0 when every
    dimension varies enough, γ − √ε at collapse. The root keeps the gradient from vanishing as a dimension dies.

    >>> round(variance(torch.ones(3, 4)).item(), 4), variance(torch.tensor([[-9.0], [9.0]])).item()
    (0.99, 0.0)
    """
    _check_batch(z)
    return F.relu(gamma - (z.var(0) + eps).sqrt()).mean()


@full_precision
def covariance(z: Tensor) -> Tensor:
    """VICReg's covariance c: the squared off-diagonal covariances (Bardes et al. 2022, equations 3 and 4).

    z: (N, D), N ≥ 2. With C = Σ (zᵢ − z̄)(zᵢ − z̄)ᵀ / (N − 1), returns Σ_{i≠j} C_ij² / D.

    >>> covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])).item()  # two dimensions that say the same
    4.0
    """
    _check_batch(z)
    squares = z.T.cov().view(z.shape[1], -1) ** 2
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]


@full_precision
def vicreg(
    z1: Tensor,
    z2: Tensor,
    *,
    sim_weight: float = 25.0,
    var_weight: float = 25.0,
    cov_weight: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """The loss of Bardes, Ponce and LeCun 2022 (VICReg), equation 6, with `invariance` as in its algorithm 1.

    z1, z2: (N, D) floating point, N ≥ 2; row i of each comes from the same image. With λ, μ, ν the three weights:

        λ s(z1, z2) + μ [v(z1) + v(z2)] + ν [c(z1) + c(z2)]

    Views agree, every dimension varies, and no two say the same. The authors' published code halves v; the paper does
    not. At collapse this is 2 μ (γ − √ε).

    Raises ValueError for unequal shapes, N < 2 or a negative weight, and TypeError for anything but floating-point
    tensors.

    >>> z = torch.ones(4, 3)
    >>> round(vicreg(z, z).item(), 4)
    49.5
    """
    check_pairs(z1=z1, z2=z2, why=NOTHING_VARIES)
    _check_weights(sim_weight=sim_weight, var_weight=var_weight, cov_weight=cov_weight)
    spread = sum(variance(z, gamma=gamma, eps=eps) for z in (z1, z2))
    return sim_weight * invariance(z1, z2) + var_weight * spread + cov_weight * (covariance(z1) + covariance(z2))


@full_precision
def whiten(z: Tensor, *, eps: float = 0.0) -> Tensor:
    """Whiten a batch by its Cholesky factor (Ermolov et al. 2021, equations 3 to 5, and Siarohin et al. 2019).

    z: (N, D), N > D. With μ the mean and Σ the covariance over N − 1, returns W (zᵢ − μ) where WᵀW = Σ⁻¹ and W is
    lower triangular: mean 0, covariance the identity. eps > 0 puts (1 − ε) Σ + ε I in Σ's place, as the authors'
    code can; directions whose variance is well below ε then vanish instead of being blown up. Computed in float64,
    since a network may well make Σ nearly singular.

    Raises ValueError for other shapes, N ≤ D, ε outside [0, 1], or a Σ without an inverse, and TypeError for anything
    but floating-point tensors.

    >>> whiten(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])).T.cov().round(decimals=4).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_batch(z)
    n, d = z.shape
    if n <= d:
        raise ValueError(f"whitening {d} dimensions takes more than {d} rows, got {n}: take a larger batch")
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must lie between 0 and 1, got {eps}")
    centred = (z - z.mean(0)).to(torch.float32 if z.device.type == "mps" else torch.float64)  # mps has no float64
    sigma = centred.T @ centred / (n - 1)
    identity = torch.eye(d, device=z.device, dtype=sigma.dtype)
    factor, failed = torch.linalg.cholesky_ex((1 - eps) * sigma + eps * identity)
    if failed:
        raise ValueError("the covariance has no inverse, so some dimensions collapsed or z is not finite: try eps=1e-6")
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T.to(z.dtype)


@full_precision
def whitening_mse(
    z1: Tensor, z2: Tensor, *, sub_batch: int | None = None, normalize: bool = True, eps: float = 0.0
) -> Tensor:
    """The loss of Ermolov et al. 2021 (W-MSE), equation 2, for two views: the distance of their whitened rows.

    z1, z2: (N, D) floating point, N > D; row i of each comes from the same image. Each view is whitened by itself
    (`whiten`), in blocks of neighbouring rows of at least `sub_batch` (all N without it), each with its own mean and
    covariance: the paper's batch slicing, for which rows must stand in random order. Then

        mean over i of ‖wᵢ/‖wᵢ‖ − w'ᵢ/‖w'ᵢ‖‖² = 2 − 2 cos(wᵢ, w'ᵢ)

    or, with normalize=False, the paper's Euclidean variant: the mean over rows and dimensions of (wᵢ − w'ᵢ)². Either
    is 0 when the views agree and about 2 when they have nothing in common. With ε = 0 a constant output has no value,
    and no direction of the output can be given up. With ε > 0 a constant costs 2, but directions that vary much less
    than ε are free to vanish, and a network that gives them up has an easier task: keep it tiny.

    Raises ValueError for unequal shapes, blocks of no more than D rows or more than N, and as `whiten` does.

    >>> z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> round(whitening_mse(z, 2 * z + 1).item(), 4)
    0.0
    """
    check_pairs(z1=z1, z2=z2, why=NOTHING_VARIES)
    n, d = z1.shape
    sub_batch = n if sub_batch is None else sub_batch
    if not d < sub_batch <= n:
        raise ValueError(f"sub_batch must be more than the {d} dimensions and at most the {n} rows, got {sub_batch}")
    blocks = n // sub_batch
    first, second = (torch.cat([whiten(part, eps=eps) for part in z.tensor_split(blocks)]) for z in (z1, z2))
    if normalize:
        return 2 - 2 * F.cosine_similarity(first, second).mean()
    return F.mse_loss(first, second)


def _check_batch(z: Tensor) -> None:
    check_floating(z=z)
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"z must have shape (N, D) with N at least 2, {NOTHING_VARIES}; got {tuple(z.shape)}")


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must not be negative, got {weight}")
