"""What is added to a reconstruction error so that a code that is wide enough to copy does something better."""

import torch
from torch import Tensor, nn

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


@full_precision
def kl_to_target(z: Tensor, target: float) -> Tensor:
    """Σ_j KL(Bernoulli(ρ) ‖ Bernoulli(ρ̂_j)), ρ̂_j the mean of unit j over the batch.

        ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂))

    z: (N, D), activations in [0, 1], of a sigmoid say. target: ρ in (0, 1), such as 0.05. It is the penalty of the
    sparse autoencoder in Ng's CS294A notes (2011). Returns a scalar, 0 where every mean is ρ, infinite where a unit is
    always 0 or always 1.

    >>> kl_to_target(torch.full((4, 3), 0.25), 0.25)
    tensor(0.)
    """
    check_floating(z=z)
    if z.ndim != 2 or len(z) == 0 or not (z.min() >= 0 and z.max() <= 1):
        raise ValueError(f"z must be (N, D) with activations in [0, 1], got {tuple(z.shape)} (use a sigmoid code)")
    if not 0 < target < 1:
        raise ValueError(f"target must lie between 0 and 1, got {target}")
    rho, mean = torch.as_tensor(target, dtype=z.dtype, device=z.device), z.mean(0)
    return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()


def jacobian_norm(encoder: nn.Module, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """‖∂f(x)/∂x‖²_F, the squared Frobenius norm of the encoder's Jacobian: Rifai et al. 2011.

    x: (N, ...); encoder(x): (N, D), each row of its own example only (no batch normalisation in training). Returns the
    mean over the examples, a scalar with gradients to the encoder. Exact, by D passes backwards, without rng. With it
    one pass: E‖vᵀJ‖² = ‖J‖²_F for v ~ N(0, I), so a random projection estimates it without bias.

    >>> layer = nn.Linear(3, 2, bias=False)
    >>> torch.allclose(jacobian_norm(layer, torch.rand(5, 3)), layer.weight.square().sum())
    True
    """
    check_floating(x=x)
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        x = x.detach().requires_grad_()
        z = encoder(x)
        if z.ndim != 2 or len(z) != len(x) or len(x) == 0:
            raise ValueError(f"encoder must give codes (N, D) for N ≥ 1 examples, got {tuple(z.shape)} of {len(x)}")
        if rng is None:
            rows = [torch.autograd.grad(unit.sum(), x, create_graph=True)[0] for unit in z.unbind(1)]
            return sum(row.square().sum() for row in rows) / len(x)
        v = torch.randn(z.shape, generator=rng, device=z.device, dtype=z.dtype)
        return torch.autograd.grad((v * z).sum(), x, create_graph=True)[0].square().sum() / len(x)
