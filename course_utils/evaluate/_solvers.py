"""The two convex problems behind the probes, each solved exactly for many regularisers at once."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Axes:
    """Standardised features in their principal axes: a rotation, so that penalised solutions are unchanged.

    `z` (N, r) are the training features, whose Gram matrix zᵀz = diag(`energy`) is diagonal; r is their rank.
    """

    mean: Tensor  # (D,)
    scale: Tensor  # (D,)
    rotation: Tensor  # (D, r)
    z: Tensor  # (N, r)
    energy: Tensor  # (r,)

    def project(self, x: Tensor) -> Tensor:
        """Features (N, D) of any split -> (N, r), standardised with the training mean and deviation."""
        return ((x.double() - self.mean) / self.scale) @ self.rotation


def principal_axes(x: Tensor) -> Axes:
    """Standardise training features (N, D) and rotate them, in float64. A constant feature becomes zero."""
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    scale = centred.square().mean(0).sqrt()
    constant = scale <= len(x) * torch.finfo(torch.float64).eps * mean.abs()  # deviation is rounding only
    scale[constant] = torch.inf  # zero in every split, whatever value it takes there
    centred /= scale
    wide = centred.shape[1] > len(x)
    energy, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    keep = energy > 1e-13 * energy[-1].clamp(min=1e-300)  # directions without variance carry no solution
    energy, vectors = energy[keep], vectors[:, keep]
    rotation = centred.T @ (vectors / energy.sqrt()) if wide else vectors
    return Axes(mean, scale, rotation, centred @ rotation, energy)


def ridge(z: Tensor, energy: Tensor, targets: Tensor, l2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients (r, T), intercept (T,) and leave-one-out predictions (N, T) of ridge regression.

    z: (N, r) with zᵀz = diag(energy) and columns of zero mean. A row's leave-one-out residual is its residual divided
    by 1 − h, with h its leverage, so no refitting is needed.
    """
    n = len(z)
    intercept = targets.mean(0)
    inverse = 1 / (energy + n * l2)
    coefficients = inverse[:, None] * (z.T @ (targets - intercept))
    residual = targets - intercept - z @ coefficients
    leverage = 1 / n + z.square() @ inverse
    left_out = targets - residual / (1 - leverage).clamp(min=1e-12)[:, None]
    return coefficients, intercept, left_out


def logistic(
    z: Tensor,
    labels: Tensor,
    weight: Tensor,
    l2: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float,
    max_steps: int = 100,
) -> Tensor:
    """Minimise P multinomial logistic regressions on the same rows at once. Returns (r + 1, P, C), the bias last.

    z: (N, r), best with a diagonal Gram matrix. labels: (N,) in 0 … C − 1. weight: (N, P), the weight of each row in
    each problem, columns summing to 1. l2: (P,). Problem p is

        Σᵢ weight[i, p] · cross_entropy(zᵢ W + b, labelᵢ) + l2[p]/2 · ‖W‖²

    Newton's method: the step solves (Hessian) d = −gradient by conjugate gradients, preconditioned with the diagonal
    of an approximate Hessian, and is halved until the objective falls enough. The step is found in float32 (for
    l2 ≥ 10⁻⁶), gradient and objective in the precision of `z`: a rough step costs another step, never exactness. A
    problem is done when no entry of its gradient exceeds `tolerance`, or when rounding hides any further fall of both
    objective and gradient.
    """
    n, classes = len(z), int(labels.max()) + 1
    z = torch.cat([z, z.new_ones(n, 1)], dim=1)
    energy = z.square().mean(0)[:, None, None]  # (r + 1, 1, 1)
    onehot = F.one_hot(labels, classes).to(z)[:, None]  # (N, 1, C)
    W = z.new_zeros(z.shape[1], len(l2), classes) if start is None else start.clone()
    active = torch.arange(len(l2), device=z.device)
    rough = torch.float32 if l2.min() >= 1e-6 else z.dtype  # the Hessian of separable data cancels to l2 in float32
    least = torch.full_like(l2, torch.inf)  # of each problem's gradients so far, by their largest entry
    for _ in range(max_steps):
        w, m = W[:, active], weight[:, active, None]
        penalty = l2[active].expand(z.shape[1], -1)[..., None].clone()  # (r + 1, P, 1)
        penalty[-1] = 0  # the bias is free
        logits = _apply(z, w)
        p = logits.softmax(-1)
        gradient = _adjoint(z, m * (p - onehot)) + penalty * w
        largest = gradient.abs().amax((0, 2))
        todo = largest > tolerance
        if not todo.all():
            active, w, m, penalty, largest = active[todo], w[:, todo], m[:, todo], penalty[:, todo], largest[todo]
            logits, p, gradient = logits[:, todo], p[:, todo], gradient[:, todo]
        if not len(active):
            break
        curvature = (m * p * (1 - p)).sum(0)  # (P, C)
        diagonal = energy * curvature + penalty
        direction = _newton_direction(*(v.to(rough) for v in (z, m, p, penalty, gradient, diagonal))).to(z)
        step, promising = _line_search(logits, _apply(z, direction), onehot, m, penalty, w, direction, gradient)
        W[:, active] = w + step[:, None] * direction
        halved = largest < least[active] / 2
        least[active] = torch.minimum(largest, least[active])
        active = active[(step > 0) & (promising | halved)]
    if len(active):
        raise RuntimeError(
            f"logistic regression with l2 = {l2[active].tolist()} did not converge in {max_steps} Newton steps; "
            "give a larger l2"
        )
    W[-1] -= W[-1].mean(-1, keepdim=True)  # a shift of every class's bias changes no probability
    return W


def _apply(z: Tensor, w: Tensor) -> Tensor:
    """(N, r) features and (r, P, C) coefficients -> (N, P, C) logits, as one matrix product."""
    return (z @ w.flatten(1)).view(len(z), *w.shape[1:])


def _adjoint(z: Tensor, g: Tensor) -> Tensor:
    return (z.T @ g.flatten(1)).view(z.shape[1], *g.shape[1:])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (P,) of the P problems' (·, P, ·) variables."""
    return (a * b).sum((0, 2))


def _newton_direction(z, m, p, penalty, gradient, diagonal) -> Tensor:
    """Conjugate gradients on the Newton system, loosely while far from the solution and tightly when near it."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    q = residual / diagonal
    search, rho = q, _dot(residual, q)
    target = rho * gradient.norm(dim=(0, 2)).clamp(1e-6, 0.1)  # squared: residual falls by the square root
    for _ in range(1000):  # features of nearly no variance need many
        zs = _apply(z, search)
        ps = p * zs
        product = _adjoint(z, m * (ps - p * ps.sum(-1, keepdim=True))) + penalty * search
        length = torch.where(rho > target, rho / _dot(search, product), 0.0)[:, None]
        direction = direction + length * search
        residual = residual - length * product
        q = residual / diagonal
        rho, before = _dot(residual, q), rho
        if not (rho > target).any():
            break
        search = q + (rho / before.clamp(min=torch.finfo(rho.dtype).tiny))[:, None] * search
    return direction


def _line_search(logits, change, onehot, m, penalty, w, direction, gradient) -> tuple[Tensor, Tensor]:
    """The largest step (P,) of 1, ½, ¼, … with sufficient decrease (Armijo's rule); 0 where there is none.

    And whether the slope promises a decrease (P,) that is more than rounding.
    """
    slope = _dot(gradient, direction)
    linear, quadratic = _dot(penalty * w, direction), _dot(penalty * direction, direction) / 2

    def data_loss(at):
        return (m[..., 0] * (at.logsumexp(-1) - (at * onehot).sum(-1))).sum(0)

    start = data_loss(logits)
    rounding = 4 * torch.finfo(start.dtype).eps * start.abs()
    step = torch.ones_like(slope)
    for _ in range(30):
        t = step[:, None]
        gain = data_loss(logits + t * change) - start + step * linear + step**2 * quadratic
        enough = gain <= 1e-4 * step * slope + rounding
        if enough.all():
            break
        step = torch.where(enough, step, step / 2)
    return torch.where(enough, step, 0.0), -slope > rounding
