"""VICReg: views agree, every dimension varies, no two dimensions say the same.

Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", 2022.
Symbols: z1, z2 the expander's outputs for the two views; λ, μ, ν the weights of its three terms.
"""

import torch

from course_utils.distributed import gather
from course_utils.losses import covariance, invariance, variance, vicreg
from course_utils.methods.base import Method
from course_utils.models import MLP
from course_utils.views import View, augment


class VICReg(Method):
    """Algorithm 1, on the joined batch of all processes; `encode` returns the representation before the expander.

    sim_weight, var_weight, cov_weight: λ, μ and ν of equation 6, as in the paper; 0 switches a term off. The expander
    has the paper's three layers, the last without bias as in the authors' code, with `projection_dim` units each where
    the paper has 8,192. It logs the three terms without their weights, the latter two of the first view.

    >>> from course_utils.models import ConvEncoder
    >>> method = VICReg(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> list(logs)
    ['invariance', 'variance', 'covariance']
    """

    def __init__(
        self,
        encoder,
        *,
        sim_weight: float = 25.0,
        var_weight: float = 25.0,
        cov_weight: float = 1.0,
        projection_dim: int = 256,
        view: View = augment,
    ):
        super().__init__()
        self.weights = {"sim_weight": sim_weight, "var_weight": var_weight, "cov_weight": cov_weight}
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ValueError(f"{name} must not be negative, got {weight}")
        self.encoder = encoder
        self.expander = MLP(encoder.out_dim, *3 * [projection_dim], bias=False)
        self.view = view

    def training_loss(self, batch, rng):
        z1, z2 = (gather(self.expander(self.encoder(self.view(batch, rng)))) for _ in range(2))
        with torch.no_grad():
            terms = {"invariance": invariance(z1, z2), "variance": variance(z1), "covariance": covariance(z1)}
        return vicreg(z1, z2, **self.weights), {name: term.item() for name, term in terms.items()}
