"""Agreement: a prediction should point where its target points. Nothing here holds the examples apart."""

import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_pairs
from course_utils.precision import full_precision


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """The negative cosine D(p, z) of Chen & He 2021 (SimSiam), equation 1, as the mean over the batch.

    p, z: (N, D) floating point; p is a prediction and z its target. They are normalised here:

        D(p, z) = − (p / ‖p‖₂) · (z / ‖z‖₂)

    between −1 (the same directions) and 1. Gradients reach both: the stop-gradient of equation 3 is the caller's,
    `negative_cosine(p, z.detach())`. BYOL's loss, the squared distance of the normalised rows (Grill et al. 2020,
    equation 2), is 2 + 2 · D(p, z). A constant p and z, a collapsed network, reach the minimum.

    Raises ValueError for unequal shapes or no rows, and TypeError for anything but floating-point tensors.

    >>> import torch
    >>> negative_cosine(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])).item()
    -0.5
    """
    check_pairs(p=p, z=z, at_least=1, why="or there is nothing to compare")
    return -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(1).mean()
