"""Objectives: one pure function each, named and typed as in its paper. Gradients flow; nothing is kept."""

from course_utils.losses.adversarial import (
    critic_cross_entropy,
    critic_wasserstein,
    generator_cross_entropy,
    generator_wasserstein,
    gradient_penalty,
)
from course_utils.losses.agreement import negative_cosine
from course_utils.losses.clustering import dino, sinkhorn, swapped_prediction
from course_utils.losses.colours import colour_bins, colour_cross_entropy, rebalancing_weights, soft_encode
from course_utils.losses.contrastive import info_nce, nt_xent
from course_utils.losses.diffusion import noise_prediction
from course_utils.losses.language import masked_cross_entropy, skip_gram_negative_sampling
from course_utils.losses.metric import contrastive_margin, mine_triplets, triplet_margin
from course_utils.losses.reconstruction import reconstruction
from course_utils.losses.redundancy import barlow_twins, covariance, invariance, variance, vicreg, whiten, whitening_mse
from course_utils.losses.regularisation import jacobian_norm, kl_to_target
from course_utils.losses.variational import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    free_bits,
    gaussian_log_likelihood,
    kl_to_standard_normal,
)

__all__ = [
    "barlow_twins",
    "bernoulli_log_likelihood",
    "categorical_log_likelihood",
    "colour_bins",
    "colour_cross_entropy",
    "contrastive_margin",
    "covariance",
    "critic_cross_entropy",
    "critic_wasserstein",
    "dino",
    "free_bits",
    "gaussian_log_likelihood",
    "generator_cross_entropy",
    "generator_wasserstein",
    "gradient_penalty",
    "info_nce",
    "invariance",
    "jacobian_norm",
    "kl_to_standard_normal",
    "kl_to_target",
    "masked_cross_entropy",
    "mine_triplets",
    "negative_cosine",
    "noise_prediction",
    "nt_xent",
    "rebalancing_weights",
    "reconstruction",
    "sinkhorn",
    "skip_gram_negative_sampling",
    "soft_encode",
    "swapped_prediction",
    "triplet_margin",
    "variance",
    "vicreg",
    "whiten",
    "whitening_mse",
]
