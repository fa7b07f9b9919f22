"""Exercise 5, the variational autoencoder: its tasks, their right solutions and known mistakes.

Notation: N examples, codes z of D numbers, K draws of z for an example. log_var is log σ².
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.checks.core import Case, Mistake, Score, Task

LOG_2PI = math.log(2 * math.pi)


def _normals(rng, *shapes, spread=1.0):
    return (rng.normal(0, spread, shape).astype(np.float32) for shape in shapes)


def _without_graph(function):
    def changed(*given):
        with torch.no_grad():
            return function(*given)

    return changed


# --- reparametrise


def reparametrise(mean, log_var, epsilon):
    return mean + (0.5 * log_var).exp() * epsilon


def _reparametrise_cases(rng):
    for n, d, draws in ((4, 3, ()), (1, 5, ()), (3, 2, (6,))):
        mean, log_var, epsilon = _normals(rng, (n, d), (n, d), (*draws, n, d), spread=1.3)
        yield Case({"mean": mean, "log_var": log_var, "epsilon": epsilon})


def _reparametrise_in_place(mean, log_var, epsilon):
    epsilon *= (0.5 * log_var).exp()
    return mean + epsilon


REPARAMETRISE = Task(
    name="reparametrise",
    title="a draw that gradients can pass",
    points=2,
    cases=_reparametrise_cases,
    solution=reparametrise,
    mistakes=(
        Mistake(
            "your noise is multiplied by the variance: the scale of a draw is the standard deviation, its root",
            lambda mean, log_var, epsilon: mean + log_var.exp() * epsilon,
        ),
        Mistake(
            "your noise is multiplied by the logarithm itself: undo the logarithm, then take the root",
            lambda mean, log_var, epsilon: mean + log_var * epsilon,
        ),
        Mistake(
            "your noise is multiplied by half the logarithm: that halves inside the exponential, which is missing",
            lambda mean, log_var, epsilon: mean + 0.5 * log_var * epsilon,
        ),
        Mistake(
            "the root is taken of the logarithm's size: first undo the logarithm, then take the root",
            lambda mean, log_var, epsilon: mean + log_var.abs().sqrt() * epsilon,
        ),
        Mistake(
            "you take the root of a logarithm, which is below zero for small variances: first undo the logarithm",
            lambda mean, log_var, epsilon: mean + log_var.sqrt() * epsilon,
        ),
        Mistake(
            "the exponent is doubled where it should be halved: a root halves a logarithm",
            lambda mean, log_var, epsilon: mean + (2 * log_var).exp() * epsilon,
        ),
        Mistake(
            "you halve the variance where its root is wanted: the half belongs into the exponent",
            lambda mean, log_var, epsilon: mean + 0.5 * log_var.exp() * epsilon,
        ),
        Mistake(
            "your noise is divided by the standard deviation: look at the sign in your exponent",
            lambda mean, log_var, epsilon: mean + (-0.5 * log_var).exp() * epsilon,
        ),
        Mistake(
            "your noise is taken off the mean: the law would be the same, but the equation adds it",
            lambda mean, log_var, epsilon: mean - (0.5 * log_var).exp() * epsilon,
        ),
        Mistake(
            "the scale is that of a softplus: this encoder gives the logarithm of the variance, so undo a logarithm",
            lambda mean, log_var, epsilon: mean + F.softplus(log_var) * epsilon,
        ),
        Mistake(
            "you return the mean alone: without noise a code is a point, and its width means nothing",
            lambda mean, log_var, epsilon: mean + 0 * log_var.exp() * epsilon,
        ),
        Mistake(
            "your noise has the same width everywhere: scale it by the encoder's standard deviation",
            lambda mean, log_var, epsilon: mean + epsilon + 0 * log_var,
        ),
        Mistake(
            "you scale the mean, too: only the noise is multiplied by the standard deviation",
            lambda mean, log_var, epsilon: (0.5 * log_var).exp() * (mean + epsilon),
        ),
        Mistake(
            "the draw is right, but its width is detached: the encoder would never learn how sure to be",
            lambda mean, log_var, epsilon: mean + (0.5 * log_var).exp().detach() * epsilon,
        ),
        Mistake(
            "the draw is right, but its mean is detached: the encoder would never learn where to put the code",
            lambda mean, log_var, epsilon: mean.detach() + (0.5 * log_var).exp() * epsilon,
        ),
        Mistake(
            "the draw is cut off from both arguments: letting gradients through is what the trick is for, so leave "
            "no_grad and detach out",
            _without_graph(reparametrise),
        ),
        Mistake(
            "the draw is right, but the noise you were given is changed: multiply into a new tensor",
            _reparametrise_in_place,
        ),
    ),
    gradients=("mean", "log_var"),
)


# --- gaussian_kl


def gaussian_kl(mean, log_var, prior_mean, prior_log_var):
    return _kl_parts(mean, log_var, prior_mean, prior_log_var).sum(1)


def _kl_parts(mean, log_var, prior_mean, prior_log_var):
    """For each example and each number of its code, (N, D)."""
    away = (mean - prior_mean).square() / prior_log_var.exp()
    return 0.5 * (prior_log_var - log_var + (log_var - prior_log_var).exp() + away - 1)


def _gaussian_kl_cases(rng):
    for n, d in ((5, 3), (1, 6), (7, 1), (3, 4)):
        mean, log_var, prior_mean, prior_log_var = _normals(rng, (n, d), (n, d), (d,), (d,))
        if (n, d) == (3, 4):
            log_var[0, 1] = -25.0  # an encoder that is very sure
        given = {"mean": mean, "log_var": log_var, "prior_mean": prior_mean, "prior_log_var": prior_log_var}
        yield Case(given)


def _kl_reversed(mean, log_var, prior_mean, prior_log_var):
    away = (mean - prior_mean).square() / log_var.exp()
    return 0.5 * (log_var - prior_log_var + (prior_log_var - log_var).exp() + away - 1).sum(1)


def _kl_to_standard(mean, log_var, prior_mean, prior_log_var):
    return 0.5 * (log_var.exp() + mean.square() - log_var - 1).sum(1)


def _kl_in_place(mean, log_var, prior_mean, prior_log_var):
    kl = gaussian_kl(mean, log_var, prior_mean, prior_log_var)
    prior_log_var.exp_()
    return kl.clone()


def _kl_changed(at_the_end):
    return lambda *given: at_the_end(_kl_parts(*given), *given)


GAUSSIAN_KL = Task(
    name="gaussian_kl",
    title="the divergence of two diagonal Gaussians",
    points=2,
    cases=_gaussian_kl_cases,
    solution=gaussian_kl,
    mistakes=(
        Mistake(
            "you add up over the examples: each example keeps its own divergence, and the numbers of its code add up",
            _kl_changed(lambda parts, *given: parts.sum(0)),
        ),
        Mistake(
            "you average over the numbers of a code: they are independent, so that their divergences add up",
            _kl_changed(lambda parts, *given: parts.mean(1)),
        ),
        Mistake(
            "you return one number for all examples: keep the first dimension, the mean over it comes later",
            _kl_changed(lambda parts, *given: parts.sum(1).mean()),
        ),
        Mistake(
            "you return one sum for all examples: keep the first dimension, one divergence an example",
            _kl_changed(lambda parts, *given: parts.sum()),
        ),
        Mistake(
            "the numbers of a code stand apart in your result: an example has one divergence, their sum",
            _kl_changed(lambda parts, *given: parts),
        ),
        Mistake(
            "the factor in front is missing: every term is twice as large as it should be",
            _kl_changed(lambda parts, *given: 2 * parts.sum(1)),
        ),
        Mistake(
            "your sign is wrong: a divergence is never negative",
            _kl_changed(lambda parts, *given: -parts.sum(1)),
        ),
        Mistake(
            "that is the divergence of the prior from the posterior: the expectation runs over q, whose mean and "
            "variance stand above the line",
            _kl_reversed,
        ),
        Mistake(
            "you compare with the standard normal whatever the prior is: use the mean and log variance that are given",
            _kl_to_standard,
        ),
        Mistake(
            "you take the prior's variance for one: its log variance is an argument, too",
            lambda m, v, pm, pv: gaussian_kl(m, v, pm, torch.zeros_like(pv)),
        ),
        Mistake(
            "you take the prior's mean for zero: it is an argument, too",
            lambda m, v, pm, pv: gaussian_kl(m, v, torch.zeros_like(pm), pv),
        ),
        Mistake(
            "you divide by the prior's log variance: undo the logarithm first",
            lambda m, v, pm, pv: 0.5 * (pv - v + (v.exp() + (m - pm).square()) / pv - 1).sum(1),
        ),
        Mistake(
            "standard deviations stand where the fraction has variances: nothing is halved inside the exponentials",
            lambda m, v, pm, pv: 0.5 * (pv - v + ((0.5 * v).exp() + (m - pm).square()) / (0.5 * pv).exp() - 1).sum(1),
        ),
        Mistake(
            "the half stands before the logarithms alone: the bracket goes round all the terms",
            lambda m, v, pm, pv: (0.5 * (pv - v) + (v.exp() + (m - pm).square()) / pv.exp() - 1).sum(1),
        ),
        Mistake(
            "the constant is missing: where both Gaussians are the same, the divergence must vanish",
            _kl_changed(lambda parts, *given: (parts + 0.5).sum(1)),
        ),
        Mistake(
            "the constant is taken off once an example: it belongs to every number of the code",
            _kl_changed(lambda parts, *given: (parts + 0.5).sum(1) - 0.5),
        ),
        Mistake(
            "the difference of the means is not measured in the prior's variance: divide its square by it",
            lambda m, v, pm, pv: 0.5 * (pv - v + (v - pv).exp() + (m - pm).square() - 1).sum(1),
        ),
        Mistake(
            "the difference of the means is divided by the standard deviation: its square needs the variance",
            lambda m, v, pm, pv: 0.5 * (pv - v + (v - pv).exp() + (m - pm).square() / (0.5 * pv).exp() - 1).sum(1),
        ),
        Mistake(
            "the difference of the means is measured in the posterior's variance: it is the prior's that stands below "
            "it",
            lambda m, v, pm, pv: 0.5 * (pv - v + (v - pv).exp() + (m - pm).square() / v.exp() - 1).sum(1),
        ),
        Mistake(
            "the difference of the means is not squared: distances to either side cost alike",
            lambda m, v, pm, pv: 0.5 * (pv - v + (v - pv).exp() + (m - pm) / pv.exp() - 1).sum(1),
        ),
        Mistake(
            "the posterior's variance is not measured in the prior's: divide one by the other",
            lambda m, v, pm, pv: 0.5 * (pv - v + v.exp() + (m - pm).square() / pv.exp() - 1).sum(1),
        ),
        Mistake(
            "the two logarithms have each other's sign: a narrow posterior must cost more than one like the prior",
            lambda m, v, pm, pv: 0.5 * (v - pv + (v - pv).exp() + (m - pm).square() / pv.exp() - 1).sum(1),
        ),
        Mistake(
            "the two logarithms are missing: without them a posterior of no width would be free",
            lambda m, v, pm, pv: 0.5 * ((v - pv).exp() + (m - pm).square() / pv.exp() - 1).sum(1),
        ),
        Mistake(
            "you take log_var for the logarithm of the standard deviation: it is that of the variance",
            lambda m, v, pm, pv: gaussian_kl(m, 2 * v, pm, 2 * pv),
        ),
        Mistake(
            "you take log_var for the variance: undo the logarithm first",
            lambda m, v, pm, pv: gaussian_kl(m, v.abs().log(), pm, pv.abs().log()),
        ),
        Mistake(
            "the divergence is right and no gradient flows: it is a part of the loss, so leave no_grad and detach out",
            _without_graph(gaussian_kl),
        ),
        Mistake(
            "the divergence is right, but log_var is detached: the encoder would never learn how sure to be",
            lambda m, v, pm, pv: gaussian_kl(m, v.detach(), pm, pv) + 0 * v.sum(),
        ),
        Mistake(
            "the divergence is right, but the mean is detached: the encoder would never be drawn to the prior",
            lambda m, v, pm, pv: gaussian_kl(m.detach(), v, pm, pv) + 0 * m.sum(),
        ),
        Mistake("the divergence is right, but an argument is changed in place: make new tensors", _kl_in_place),
    ),
    gradients=("mean", "log_var"),
)


# --- bernoulli_log_likelihood


def bernoulli_log_likelihood(x, logits):
    return (x * logits - F.softplus(logits)).flatten(1).sum(1)


def _bernoulli_cases(rng):
    for shape in ((5, 1, 3, 4), (1, 2, 4, 3), (3, 2, 2, 5)):
        (logits,) = _normals(rng, shape, spread=2.0)
        x = rng.random(shape).astype(np.float32)
        if shape[0] == 3:  # sure of itself, rightly and wrongly
            logits = np.sign(logits) * rng.uniform(110, 300, shape).astype(np.float32)
            x = np.where(rng.random(shape) < 0.7, x > 0.5, x).astype(np.float32)
            x[0, 0, 0, :2], logits[0, 0, 0, :2] = (0, 1), (150, -150)
        yield Case({"x": x, "logits": logits})


def _pixels(x, logits):
    return x * logits - F.softplus(logits)


def _by_logarithms(x, p, small=0.0):
    return (x * (p + small).log() + (1 - x) * (1 - p + small).log()).flatten(1).sum(1)


def _bernoulli_in_place(x, logits):
    x *= logits.detach()
    return (x / logits.detach() * logits - F.softplus(logits)).flatten(1).sum(1)


BERNOULLI = Task(
    name="bernoulli_log_likelihood",
    title="how likely an image is, from logits",
    points=2,
    cases=_bernoulli_cases,
    solution=bernoulli_log_likelihood,
    mistakes=(
        Mistake(
            "right for small logits, but large ones give NaN or infinity: the sigmoid rounds to zero or one before the "
            "logarithm, so put both into one stable function",
            lambda x, logits: _by_logarithms(x, logits.sigmoid()),
        ),
        Mistake(
            "you take the logarithm of the logits: they are no probabilities yet, and may be negative",
            lambda x, logits: _by_logarithms(x, logits),
        ),
        Mistake(
            "the exponential of a large logit is infinite: torch has a stable function for the logarithm of one plus "
            "an exponential",
            lambda x, logits: (x * logits - (1 + logits.exp()).log()).flatten(1).sum(1),
        ),
        Mistake(
            "a small number inside the logarithm hides how wrong a sure answer is, and takes its gradient away: "
            "work with the logits themselves",
            lambda x, logits: _by_logarithms(x, logits.sigmoid(), 1e-8),
        ),
        Mistake(
            "the small number inside your logarithm is large enough to change ordinary pixels, and it hides how wrong "
            "a sure answer is: work with the logits themselves",
            lambda x, logits: _by_logarithms(x, logits.sigmoid(), 1e-6),
        ),
        Mistake(
            "your probabilities are clamped: a sure and wrong answer gets cheap and loses its gradient, so work with "
            "the logits themselves",
            lambda x, logits: _by_logarithms(x, logits.sigmoid().clamp(1e-6, 1 - 1e-6)),
        ),
        Mistake(
            "your probabilities are kept a hair from zero and one: that caps what a sure and wrong answer costs, so "
            "work with the logits themselves",
            lambda x, logits: _by_logarithms(x, logits.sigmoid().clamp(1e-7, 1 - 1e-7)),
        ),
        Mistake(
            "image and logits are in the wrong order: torch's function takes what the decoder says first, then the "
            "image",
            lambda x, logits: -F.binary_cross_entropy_with_logits(x, logits, reduction="none").flatten(1).sum(1),
        ),
        Mistake(
            "you mix the two probabilities before the logarithm: each logarithm is taken first and then weighted by "
            "the image",
            lambda x, logits: (x * logits.sigmoid() + (1 - x) * (-logits).sigmoid()).log().flatten(1).sum(1),
        ),
        Mistake(
            "that is the mean loss of each image: pixels add up, and the sign is that of a likelihood",
            lambda x, logits: -_pixels(x, logits).flatten(1).mean(1),
        ),
        Mistake(
            "the normaliser has the wrong sign: it is subtracted, so that no logarithm of a probability exceeds zero",
            lambda x, logits: (x * logits + F.softplus(logits)).flatten(1).sum(1),
        ),
        Mistake(
            "binary_cross_entropy cuts its logarithms off, so that sure and wrong answers all cost the same: there is "
            "a form of it that takes logits",
            lambda x, logits: -F.binary_cross_entropy(logits.sigmoid(), x, reduction="none").flatten(1).sum(1),
        ),
        Mistake(
            "that is the negative: a likelihood is to be large, and the logarithm of a probability is below zero",
            lambda x, logits: -bernoulli_log_likelihood(x, logits),
        ),
        Mistake(
            "you average over the pixels: their probabilities multiply, so that logarithms add up. This is the mistake "
            "that makes a code fall silent",
            lambda x, logits: _pixels(x, logits).flatten(1).mean(1),
        ),
        Mistake(
            "you return one mean of all pixels and images, as the loss functions do by default: ask for no reduction",
            lambda x, logits: _pixels(x, logits).mean(),
        ),
        Mistake(
            "that is the mean loss over all pixels and images, as binary cross-entropy gives by default: ask for no "
            "reduction, and mind the sign",
            lambda x, logits: -_pixels(x, logits).mean(),
        ),
        Mistake(
            "you return one sum over all images: keep the first dimension",
            lambda x, logits: _pixels(x, logits).sum(),
        ),
        Mistake(
            "you add up over the images: it is the pixels that go",
            lambda x, logits: _pixels(x, logits).sum(0),
        ),
        Mistake(
            "you add up one dimension only: an image has channels, rows and columns, and all three must go",
            lambda x, logits: _pixels(x, logits).sum(-1),
        ),
        Mistake(
            "your sum leaves the channels apart: they belong to the image as its rows and columns do",
            lambda x, logits: _pixels(x, logits).sum((2, 3)),
        ),
        Mistake(
            "only ink counts in your sum: where the image is dark, the probability of dark counts, too",
            lambda x, logits: (x * F.logsigmoid(logits)).flatten(1).sum(1),
        ),
        Mistake(
            "image and probability have changed places: the logarithms are of what the decoder says",
            lambda x, logits: (
                (logits.sigmoid() * x.clamp_min(1e-30).log() + (1 - logits.sigmoid()) * (1 - x).clamp_min(1e-30).log())
                .flatten(1)
                .sum(1)
            ),
        ),
        Mistake(
            "a sigmoid is applied twice: a function that takes logits applies its own",
            lambda x, logits: bernoulli_log_likelihood(x, logits.sigmoid()),
        ),
        Mistake(
            "that is the squared error of the probabilities: it belongs to a Gaussian likelihood",
            lambda x, logits: -(x - logits.sigmoid()).square().flatten(1).sum(1),
        ),
        Mistake(
            "a grey pixel counts as dark in your sum: it is a weight of both logarithms",
            lambda x, logits: bernoulli_log_likelihood((x == 1).float(), logits),
        ),
        Mistake(
            "ink and dark have changed places: the logit speaks for ink",
            lambda x, logits: bernoulli_log_likelihood(1 - x, logits),
        ),
        Mistake(
            "you round the image to black and white: grey pixels are weights of the two logarithms, so keep them",
            lambda x, logits: bernoulli_log_likelihood(x.round(), logits),
        ),
        Mistake(
            "the numbers are right and no gradient flows: this is what trains the decoder, so leave no_grad and "
            "detach out",
            _without_graph(bernoulli_log_likelihood),
        ),
        Mistake("the numbers are right, but the image is changed in place: make new tensors", _bernoulli_in_place),
    ),
    gradients=("logits",),
    rtol=1e-5,
)


# --- elbo


def elbo(log_likelihoods, kl, beta):
    fit = log_likelihoods.mean(0)
    return -(fit - beta * kl).mean(), fit - kl


def _elbo_cases(rng):
    for k, n, beta in ((4, 3, 0.3), (1, 5, 4.0), (3, 7, 2.5), (2, 6, 0.0)):
        log_likelihoods = rng.normal(-9, 3, (k, n)).astype(np.float32)
        kl = rng.uniform(1, 5, n).astype(np.float32)
        yield Case({"log_likelihoods": log_likelihoods, "kl": kl, "beta": beta})


def _elbo_in_place(log_likelihoods, kl, beta):
    loss, bound = elbo(log_likelihoods, kl, beta)
    with torch.no_grad():
        kl *= beta
    return loss, bound


ELBO = Task(
    name="elbo",
    title="the loss, and the bound that is reported",
    points=2,
    cases=_elbo_cases,
    solution=elbo,
    mistakes=(
        Mistake(
            "β is in your bound: the loss may weigh its terms, but only the unweighted difference lies below log p(x)",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], lls.mean(0) - beta * kl),
        ),
        Mistake(
            "β is not in your loss: it multiplies the divergence there",
            lambda lls, kl, beta: elbo(lls, kl, 1.0),
        ),
        Mistake(
            "the two results have changed places: the loss, which β belongs to, comes first, then the bound",
            lambda lls, kl, beta: elbo(lls, kl, beta)[::-1],
        ),
        Mistake(
            "β multiplies the likelihood in your loss: it is the divergence that it makes dearer",
            lambda lls, kl, beta: (-(beta * lls.mean(0) - kl).mean(), lls.mean(0) - kl),
        ),
        Mistake(
            "β multiplies the whole loss: it weighs the divergence alone",
            lambda lls, kl, beta: (beta * elbo(lls, kl, 1.0)[0], lls.mean(0) - kl),
        ),
        Mistake(
            "an optimiser descends, and your loss rises with the bound: turn its sign round",
            lambda lls, kl, beta: (-elbo(lls, kl, beta)[0], lls.mean(0) - kl),
        ),
        Mistake(
            "your bound has the sign of a loss: only what is minimised is turned round",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], kl - lls.mean(0)),
        ),
        Mistake(
            "your divergence has the wrong sign in both results: saying more about an example must cost",
            lambda lls, kl, beta: elbo(lls, -kl, beta),
        ),
        Mistake(
            "your divergence has the wrong sign in the loss: saying more about an example must cost",
            lambda lls, kl, beta: (elbo(lls, -kl, beta)[0], lls.mean(0) - kl),
        ),
        Mistake(
            "your loss adds up over the examples: take their mean, or the step grows with the batch",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0] * len(kl), lls.mean(0) - kl),
        ),
        Mistake(
            "your loss keeps the examples apart: it is one number, their mean",
            lambda lls, kl, beta: (beta * kl - lls.mean(0), lls.mean(0) - kl),
        ),
        Mistake(
            "you add up over the draws: an expectation is estimated by their mean",
            lambda lls, kl, beta: elbo(lls * len(lls), kl, beta),
        ),
        Mistake(
            "your loss adds up over the draws: there, too, an expectation is estimated by their mean",
            lambda lls, kl, beta: (-(lls.sum(0) - beta * kl).mean(), lls.mean(0) - kl),
        ),
        Mistake(
            "the likelihood has the wrong sign in your loss: the better the fit, the lower the loss",
            lambda lls, kl, beta: ((lls.mean(0) + beta * kl).mean(), lls.mean(0) - kl),
        ),
        Mistake(
            "you average the likelihoods themselves over the draws: that is another bound, and comes in the next "
            "task. Here the expectation is of the logarithm",
            lambda lls, kl, beta: elbo(lls.logsumexp(0, keepdim=True) - math.log(len(lls)), kl, beta),
        ),
        Mistake(
            "you average over the examples where the draws should go: the first dimension counts draws",
            lambda lls, kl, beta: (-(lls.mean(1) - beta * kl).mean(), lls.mean(1) - kl),
        ),
        Mistake(
            "you average the log-likelihoods over draws and examples at once: only the draws go, or the bound cannot "
            "tell one example from the next",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], lls.mean() - kl),
        ),
        Mistake(
            "your bound is one number: give every example its own, which tells which images the model finds strange",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], (lls.mean(0) - kl).mean()),
        ),
        Mistake(
            "your bound keeps the draws apart: average over them, one bound an example",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], lls - kl),
        ),
        Mistake(
            "you use the first draw alone: an expectation is estimated by the mean of all",
            lambda lls, kl, beta: elbo(lls[:1], kl, beta),
        ),
        Mistake(
            "the divergence is added up over the examples in your loss, beside a mean of the likelihood: average both",
            lambda lls, kl, beta: (beta * kl.sum() - lls.mean(), lls.mean(0) - kl),
        ),
        Mistake(
            "the divergence is divided by the number of draws: only the likelihood is averaged over them",
            lambda lls, kl, beta: elbo(lls, kl / len(lls), beta),
        ),
        Mistake(
            "you keep the best draw of each example: an expectation is their mean, and the best is no bound",
            lambda lls, kl, beta: elbo(lls.max(0, keepdim=True).values, kl, beta),
        ),
        Mistake(
            "the divergence is left out of your bound: without it nothing keeps the number below log p(x)",
            lambda lls, kl, beta: (elbo(lls, kl, beta)[0], lls.mean(0)),
        ),
        Mistake(
            "the numbers are right and the loss has no gradient: leave item, detach and no_grad out of it",
            _without_graph(elbo),
        ),
        Mistake(
            "the divergence is detached in your loss: it would be counted and never become smaller",
            lambda lls, kl, beta: elbo(lls, kl.detach(), beta),
        ),
        Mistake("both are right, but the divergence you were given is changed: make a new tensor", _elbo_in_place),
    ),
    returns=("loss", "bound"),
    gradients=("log_likelihoods", "kl"),
)


# --- importance_weighted_bound


def importance_weighted_bound(log_likelihoods, z, mean, log_var):
    return _log_weights(log_likelihoods, z, mean, log_var).logsumexp(0) - math.log(len(z))


def _log_prior(z):
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


def _log_q(z, mean, log_var):
    return -0.5 * ((z - mean).square() / log_var.exp() + log_var + LOG_2PI).sum(-1)


def _log_weights(log_likelihoods, z, mean, log_var):
    return log_likelihoods + _log_prior(z) - _log_q(z, mean, log_var)  # (K, N)


def _importance_cases(rng):
    for k, n, d, level in ((5, 3, 2, -20), (1, 4, 3, -12), (4, 6, 1, -8), (6, 2, 5, -1200)):
        log_likelihoods = rng.normal(level, 2, (k, n)).astype(np.float32)
        mean, log_var, epsilon = _normals(rng, (n, d), (n, d), (k, n, d))
        z = mean + np.exp(0.5 * log_var) * epsilon
        yield Case({"log_likelihoods": log_likelihoods, "z": z, "mean": mean, "log_var": log_var})


def _importance_in_place(log_likelihoods, z, mean, log_var):
    log_likelihoods += _log_prior(z) - _log_q(z, mean, log_var)
    return log_likelihoods.logsumexp(0) - math.log(len(z))


def _reduced(log_weights):
    return log_weights.logsumexp(0) - math.log(len(log_weights))


IMPORTANCE = Task(
    name="importance_weighted_bound",
    title="a tighter bound from many draws",
    points=3,
    cases=_importance_cases,
    solution=importance_weighted_bound,
    mistakes=(
        Mistake(
            "you average the logarithms: that is the evidence lower bound again. The weights themselves are averaged, "
            "then comes the logarithm",
            lambda *given: _log_weights(*given).mean(0),
        ),
        Mistake(
            "that is right for small numbers only: exp of minus hundreds is zero, and its logarithm infinite. Keep to "
            "logarithms with logsumexp",
            lambda *given: _log_weights(*given).exp().mean(0).log(),
        ),
        Mistake(
            "the largest weight is taken out before exp, as it should, and never put back",
            lambda *given: _reduced(_log_weights(*given) - _log_weights(*given).max(0).values),
        ),
        Mistake(
            "you weigh the likelihoods by normalised weights: asked is the logarithm of the mean weight itself",
            lambda *given: (_log_weights(*given).softmax(0) * given[0]).sum(0),
        ),
        Mistake(
            "your sum over the draws is not divided by their number: in logarithms, that is a subtraction",
            lambda *given: _log_weights(*given).logsumexp(0),
        ),
        Mistake(
            "the number of draws is added where it should be divided by: look at the sign of its logarithm",
            lambda *given: _log_weights(*given).logsumexp(0) + math.log(len(given[0])),
        ),
        Mistake(
            "you divide the logarithm by the number of draws: it is the sum inside the logarithm that is divided",
            lambda *given: _log_weights(*given).logsumexp(0) / len(given[0]),
        ),
        Mistake(
            "you divide by the number of examples: the mean runs over the draws",
            lambda *given: _log_weights(*given).logsumexp(0) - math.log(given[0].shape[1]),
        ),
        Mistake(
            "you take the best draw alone: all of them are averaged",
            lambda *given: _log_weights(*given).max(0).values,
        ),
        Mistake(
            "your sum runs over the examples: the first dimension counts draws, and it is the one that goes",
            lambda *given: _log_weights(*given).logsumexp(1) - math.log(given[0].shape[1]),
        ),
        Mistake(
            "you return one number for all: each example has its own bound",
            lambda *given: importance_weighted_bound(*given).mean(),
        ),
        Mistake(
            "the prior is missing: above the line stands the joint p(x, z), which is the likelihood times p(z)",
            lambda lls, z, mean, log_var: _reduced(lls - _log_q(z, mean, log_var)),
        ),
        Mistake(
            "nothing is divided by q: a draw that q makes often must count less",
            lambda lls, z, mean, log_var: _reduced(lls + _log_prior(z)),
        ),
        Mistake(
            "neither prior nor posterior is in your weights: averaged likelihoods alone bound nothing here",
            lambda lls, z, mean, log_var: _reduced(lls),
        ),
        Mistake(
            "you multiply by q: its logarithm is subtracted, since the weight divides by it",
            lambda lls, z, mean, log_var: _reduced(lls + _log_prior(z) + _log_q(z, mean, log_var)),
        ),
        Mistake(
            "prior and posterior have changed places: the weight is p over q",
            lambda lls, z, mean, log_var: _reduced(lls - _log_prior(z) + _log_q(z, mean, log_var)),
        ),
        Mistake(
            "the density of q lacks its width: the logarithm of the variance belongs to the constant in front",
            lambda lls, z, mean, log_var: _reduced(
                lls + _log_prior(z) + 0.5 * ((z - mean).square() / log_var.exp() + LOG_2PI).sum(-1)
            ),
        ),
        Mistake(
            "the width of q counts twice in its constant: half of the logarithm of the variance is subtracted",
            lambda lls, z, mean, log_var: _reduced(
                lls + _log_prior(z) + 0.5 * ((z - mean).square() / log_var.exp() + 2 * log_var + LOG_2PI).sum(-1)
            ),
        ),
        Mistake(
            "the width of q has the wrong sign in its constant: a narrow density is a high one",
            lambda lls, z, mean, log_var: _reduced(
                lls + _log_prior(z) + 0.5 * ((z - mean).square() / log_var.exp() - log_var + LOG_2PI).sum(-1)
            ),
        ),
        Mistake(
            "that is the negative: a bound on a logarithm has its sign, a loss would turn it round",
            lambda *given: -importance_weighted_bound(*given),
        ),
        Mistake(
            "you take log_var for the logarithm of the standard deviation in q: it is that of the variance",
            lambda lls, z, mean, log_var: _reduced(lls + _log_prior(z) - _log_q(z, mean, 2 * log_var)),
        ),
        Mistake(
            "a square in the density of q is divided by the standard deviation: it needs the variance",
            lambda lls, z, mean, log_var: _reduced(
                lls + _log_prior(z) + 0.5 * ((z - mean).square() / (0.5 * log_var).exp() + log_var + LOG_2PI).sum(-1)
            ),
        ),
        Mistake(
            "the half is missing in both densities: a Gaussian's exponent has one",
            lambda lls, z, mean, log_var: _reduced(
                lls + 2 * _log_prior(z) - 2 * _log_q(z, mean, log_var) - 0.5 * log_var.sum(-1)
            ),
        ),
        Mistake(
            "one density has its constant with π and the other has not: they cancel only where both have it",
            lambda lls, z, mean, log_var: _reduced(lls - 0.5 * z.square().sum(-1) - _log_q(z, mean, log_var)),
        ),
        Mistake(
            "the constant with π stands in the prior and not in q: they cancel only where both have it",
            lambda lls, z, mean, log_var: _reduced(
                lls + _log_prior(z) - _log_q(z, mean, log_var) - 0.5 * z.shape[-1] * LOG_2PI
            ),
        ),
        Mistake(
            "you use the closed form of the divergence: here every draw has a weight of its own, with both densities "
            "taken at that draw",
            lambda lls, z, mean, log_var: _reduced(
                lls - gaussian_kl(mean, log_var, torch.zeros_like(mean[0]), torch.zeros_like(mean[0]))
            ),
        ),
        Mistake(
            "you average over the numbers of a code: they are independent, so that their log densities add up",
            lambda lls, z, mean, log_var: _reduced(lls + (_log_prior(z) - _log_q(z, mean, log_var)) / z.shape[-1]),
        ),
        Mistake("the bound is right, but the log-likelihoods are changed in place", _importance_in_place),
    ),
    rtol=1e-5,
    atol=1e-4,
)


# --- traverse


def traverse(z, values):
    d = len(z)
    grid = z.expand(d, len(values), d).clone()
    for i in range(d):
        grid[i, :, i] = values
    return grid


def _traverse_cases(rng):
    for d, v in ((4, 3), (2, 5), (1, 6), (5, 1)):
        z, values = _normals(rng, (d,), (v,))
        yield Case({"z": z, "values": values})


def _added(z, values):
    return z + values[:, None] * torch.eye(len(z))[:, None, :]


def _one_after_the_other(z, values, owner=torch.clone):
    grid = torch.zeros(len(z), len(values), len(z))
    code = owner(z)
    for i in range(len(z)):
        for j, value in enumerate(values):
            code[i] = value
            grid[i, j] = code
    return grid


def _others_at_zero(z, values):
    return values[:, None] * torch.eye(len(z))[:, None, :]


def _all_alike(z, values):
    code = z.clone()
    grid = [[code] * len(values)] * len(z)
    for i in range(len(z)):
        for value in values:
            code[i] = value
    return torch.stack([torch.stack(row) for row in grid])


def _last_of_the_row(z, values):
    grid = traverse(z, values)
    for i in range(len(z)):
        grid[i:, :, i] = values[-1]
    return grid


TRAVERSE = Task(
    name="traverse",
    title="a grid of codes, one latent a row",
    points=2,
    cases=_traverse_cases,
    solution=traverse,
    mistakes=(
        Mistake(
            "you add the values to the latent: it takes them, so that every row covers the same part of the prior",
            _added,
        ),
        Mistake(
            "nothing moves: all entries are the code that you were given",
            lambda z, values: z.repeat(len(z), len(values), 1),
        ),
        Mistake(
            "rows and columns have changed places: a row belongs to a latent, a column to a value",
            lambda z, values: traverse(z, values).transpose(0, 1),
        ),
        Mistake(
            "all latents change at once: in row i only latent i takes the values",
            lambda z, values: values[None, :, None].expand(len(z), len(values), len(z)).clone(),
        ),
        Mistake(
            "the other latents are set to zero: they stay at the code that you were given",
            _others_at_zero,
        ),
        Mistake(
            "a latent keeps its last value when the next one moves: start every row from the code as it was given",
            _one_after_the_other,
        ),
        Mistake(
            "you write into the code you were given, so that a latent keeps its last value when the next one moves: "
            "copy the code for every row",
            lambda z, values: _one_after_the_other(z, values, owner=lambda code: code),
        ),
        Mistake(
            "all entries are one and the same tensor, which holds what was written last: make a copy for each",
            _all_alike,
        ),
        Mistake(
            "the entries of a row are one and the same tensor, which holds what was written last: make a copy for each",
            _last_of_the_row,
        ),
        Mistake(
            "your values run backwards: the first column has the first value",
            lambda z, values: traverse(z, values.flip(0)),
        ),
        Mistake(
            "the rows run from the last latent to the first: row i moves latent i",
            lambda z, values: traverse(z, values).flip(0),
        ),
        Mistake(
            "your rows are shifted: row i must move latent i, counted from zero",
            lambda z, values: traverse(z, values).roll(1, 0),
        ),
        Mistake(
            "your grid is one long list of codes: keep a dimension for the latents and one for the values",
            lambda z, values: traverse(z, values).flatten(0, 1),
        ),
        Mistake(
            "your grid holds only the latent that moves: an entry is a whole code, ready for the decoder",
            lambda z, values: values.expand(len(z), len(values)).clone(),
        ),
        Mistake(
            "codes are floating-point numbers, and yours are rounded: give the grid the type of z",
            lambda z, values: traverse(z, values).long(),
        ),
    ),
)


# --- log_mixture


def log_mixture(z, logits, means, log_vars):
    return (logits.log_softmax(0) + _components(z, means, log_vars).sum(-1)).logsumexp(1)


def _components(z, means, log_vars):
    """log N(z_d; μ_kd, σ²_kd) for each example, component and number of the code: (N, K, D)."""
    return -0.5 * ((z[:, None] - means).square() / log_vars.exp() + log_vars + LOG_2PI)


def _log_mixture_cases(rng):
    for n, k, d, far in ((5, 3, 2, 0), (1, 4, 3, 0), (6, 2, 5, 0), (4, 6, 1, 60)):
        z, logits, means, log_vars = _normals(rng, (n, d), (k,), (k, d), (k, d))
        if far:  # from all components
            z, log_vars = z + far * np.sign(z), np.minimum(log_vars, 0)
        yield Case({"z": z, "logits": 1.5 * logits, "means": means, "log_vars": log_vars})


def _mixed(change):
    """The mixture's log density with `change(log weights or logits, log densities (N, K, D))` at the end."""
    return lambda z, logits, means, log_vars: change(logits, _components(z, means, log_vars))


def _mixture_in_place(z, logits, means, log_vars):
    density = log_mixture(z, logits, means, 1 * log_vars)
    with torch.no_grad():
        log_vars.exp_()
    return density


def _cut(name):
    """The right density with one argument detached."""

    def mixture(*given):
        given = dict(zip(("z", "logits", "means", "log_vars"), given, strict=True))
        return log_mixture(**given | {name: given[name].detach()}) + 0 * given[name].sum()

    return mixture


LOG_MIXTURE = Task(
    name="log_mixture",
    title="the log density of a mixture prior",
    points=3,
    cases=_log_mixture_cases,
    solution=log_mixture,
    mistakes=(
        Mistake(
            "right near the components, infinite far from them: densities there round to zero before the logarithm, "
            "so stay with logarithms and logsumexp",
            _mixed(lambda logits, parts: (logits.softmax(0) * parts.sum(-1).exp()).sum(1).log()),
        ),
        Mistake(
            "you average the components' log densities: a mixture adds up densities, and the logarithm comes last",
            _mixed(lambda logits, parts: (logits.softmax(0) * parts.sum(-1)).sum(1)),
        ),
        Mistake(
            "you add up the components' logarithms: that multiplies their densities, and a mixture adds them up",
            _mixed(lambda logits, parts: (logits.log_softmax(0) + parts.sum(-1)).sum(1)),
        ),
        Mistake(
            "the components have only their exponents: each Gaussian needs its constant, with π and with its width",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0) - 0.5 * ((z[:, None] - means).square() / log_vars.exp()).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "your weights do not add up to one: logits must be normalised before they are logarithms of weights",
            _mixed(lambda logits, parts: (logits + parts.sum(-1)).logsumexp(1)),
        ),
        Mistake(
            "you add the weights themselves to logarithms: take their logarithms, too",
            _mixed(lambda logits, parts: (logits.softmax(0) + parts.sum(-1)).logsumexp(1)),
        ),
        Mistake(
            "your weights multiply the log densities: in logarithms, a factor is added",
            _mixed(lambda logits, parts: (logits.softmax(0) * parts.sum(-1)).logsumexp(1)),
        ),
        Mistake(
            "all components weigh the same: use the weights that the logits give",
            _mixed(lambda logits, parts: parts.sum(-1).logsumexp(1) - math.log(parts.shape[1])),
        ),
        Mistake(
            "the components have no weights: each counts whole, and the density adds up to more than one",
            _mixed(lambda logits, parts: parts.sum(-1).logsumexp(1)),
        ),
        Mistake(
            "you take the most likely component alone: all of them add up",
            _mixed(lambda logits, parts: (logits.log_softmax(0) + parts.sum(-1)).max(1).values),
        ),
        Mistake(
            "the widths have the wrong sign in front: a wide Gaussian is low, a narrow one high",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0) + (_components(z, means, log_vars) + log_vars).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "you mix every number of the code on its own: one component makes the whole code, so add up its numbers "
            "before you mix",
            _mixed(lambda logits, parts: (logits.log_softmax(0)[:, None] + parts).logsumexp(1).sum(-1)),
        ),
        Mistake(
            "you average over the numbers of a code: they are independent within a component, so that logarithms "
            "add up",
            _mixed(lambda logits, parts: (logits.log_softmax(0) + parts.mean(-1)).logsumexp(1)),
        ),
        Mistake(
            "you mix over the examples: the components are what is added up",
            _mixed(lambda logits, parts: (logits.log_softmax(0) + parts.sum(-1)).logsumexp(0)),
        ),
        Mistake(
            "the constant with π is missing: without it this is no density, and bounds of two priors compare wrongly",
            _mixed(
                lambda logits, parts: (
                    (logits.log_softmax(0) + parts.sum(-1)).logsumexp(1) + 0.5 * parts.shape[-1] * LOG_2PI
                )
            ),
        ),
        Mistake(
            "the constant with π stands once a code: every number of the code has one",
            _mixed(
                lambda logits, parts: (
                    (logits.log_softmax(0) + parts.sum(-1)).logsumexp(1) + 0.5 * (parts.shape[-1] - 1) * LOG_2PI
                )
            ),
        ),
        Mistake(
            "the components' widths are missing in front: a wide Gaussian is low, by half its log variance",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0) + (_components(z, means, log_vars) + 0.5 * log_vars).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "the whole log variance is subtracted in front: the constant holds the standard deviation, half of it",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0) + (_components(z, means, log_vars) - 0.5 * log_vars).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "you take log_vars for logarithms of standard deviations: they are those of variances",
            lambda z, logits, means, log_vars: log_mixture(z, logits, means, 2 * log_vars),
        ),
        Mistake(
            "the squares are divided by standard deviations: they need variances",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0)
                - 0.5 * ((z[:, None] - means).square() / (0.5 * log_vars).exp() + log_vars + LOG_2PI).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "the half in the exponent is missing: the square is divided by twice the variance",
            lambda z, logits, means, log_vars: (
                logits.log_softmax(0)
                - ((z[:, None] - means).square() / log_vars.exp() + 0.5 * log_vars + 0.5 * LOG_2PI).sum(-1)
            ).logsumexp(1),
        ),
        Mistake(
            "you ignore the components' variances: each has its own",
            lambda z, logits, means, log_vars: log_mixture(z, logits, means, torch.zeros_like(log_vars)),
        ),
        Mistake(
            "your sign is turned round: that is a loss, asked is the log density",
            lambda *given: -log_mixture(*given),
        ),
        Mistake(
            "the density is right and no gradient flows: means and weights are to be learned, so leave no_grad and "
            "detach out",
            _without_graph(log_mixture),
        ),
        Mistake(
            "the density is right, but the codes are detached: an encoder could not move its codes to the prior",
            _cut("z"),
        ),
        Mistake("the density is right, but the logits are detached: the weights would never learn", _cut("logits")),
        Mistake("the density is right, but the means are detached: the components would never move", _cut("means")),
        Mistake("the density is right, but log_vars is detached: no component would find its width", _cut("log_vars")),
        Mistake("the density is right, but log_vars is changed in place: make a new tensor", _mixture_in_place),
    ),
    gradients=("z", "logits", "means", "log_vars"),
)


# --- train_vae

NAMES = ("W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4")
MOST_HIDDEN = 256
GIVEN_IMAGES, HIDDEN_IMAGES, LATENT, STEPS = 4_000, 1_000, 16, 600
# Nats an image by which the bound on hidden Glyphs exceeds the mean image's log-likelihood, seeds 0 and 1, batches of
# 128: a linear encoder and decoder 54 and 51 (Adam at 3e-3); one hidden layer of 256 each way at Adam's own 1e-3 104
# and 99, at 3e-3 with a schedule 109 and 105, at 5e-3 116 and 112; β = 4 85 and 83; a collapsed or random code below 0.
LINEAR_LEVEL, GOOD_LEVEL = 52.0, 105.0


def make_vae(size, latent, hidden=128):
    """Encoder (mean and log variance beside each other) and decoder (logits), one hidden layer of ReLUs each."""
    encoder = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, size))
    return encoder, decoder


def train_vae(images, latent, steps, seed):
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x = images.flatten(1)
    encoder, decoder = make_vae(x.shape[1], latent, hidden=MOST_HIDDEN if steps > 200 else 64)
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(weights)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    standard = torch.zeros(latent)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,), generator=rng)]
        mean, log_var = encoder(batch).chunk(2, 1)
        z = reparametrise(mean, log_var, torch.randn(mean.shape, generator=rng))
        kl = gaussian_kl(mean, log_var, standard, standard)
        loss, _ = elbo(bernoulli_log_likelihood(batch, decoder(z))[None], kl, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return tuple(w.detach() for w in weights)


def _train_cases(rng):
    """Black and white images of few pixels that two numbers nearly determine, and enough steps that it must show."""
    for n, shape, latent, steps in ((96, (1, 8, 7), 3, TRAINED), (80, (1, 5, 6), 4, 2)):
        size = math.prod(shape)
        factors = np.tanh(2 * rng.normal(size=(n, 2)))
        ink = factors @ rng.normal(size=(2, size)) + 0.3 * rng.normal(size=size) > 0
        images = ink.reshape(n, *shape).astype(np.float32)
        yield Case({"images": images, "latent": latent, "steps": steps, "seed": int(rng.integers(1000))})


def _graded_train_cases(rng):
    """Glyphs in black and white. The hidden ones never leave the judge: it runs the networks that it was given.

    They have a seed of their own: that of the given ones could be found by trying.
    """
    from course_utils.data.glyphs import glyphs

    def drawn(n: int) -> np.ndarray:
        splits = glyphs(seed=int(rng.integers(2**31)), n_train=n, n_validation=1, n_test=1, difficulty="easy")
        return (splits.train.x > 0.5).float().numpy()

    images, hidden = drawn(GIVEN_IMAGES), drawn(HIDDEN_IMAGES)
    given = {"images": images, "latent": LATENT, "steps": STEPS, "seed": int(rng.integers(1000))}
    return [Case(given, {"images": hidden, "seed": int(rng.integers(2**31))})]


TRAIN_HINTS = {
    "transposed": "your weights are the other way round: keep them as nn.Linear does, one row for each output",
    "halves": "the encoder's last layer must have two outputs for each latent: its mean, and its log variance",
    "reads": "the decoder must read one number for each latent: it is given the draw, not mean and log variance",
    "hidden": "your hidden layers have more units than are allowed here: the docstring says how many",
    "order": "mean and log variance have changed places: the first half of the encoder's outputs are the means",
    "collapsed": "your posterior has collapsed: whatever the image, the code is the prior. See that the likelihood "
    "adds up over pixels where it should, that its gradient passes the draw, and that the weight of the divergence is "
    "not too large",
    "no price": "the code costs more than it buys: the divergence is far above what the likelihood wins, as if it were "
    "not in the loss, too light there, or of the wrong sign. Or the mean was decoded in training, and not a draw",
    "no noise": "the mean code is decoded well and draws around it are not: in training, decode the draw",
    "still": "the encoder's weights lie where a fresh layer's do, and only the decoder has learned: see that the "
    "optimiser got the weights of both",
    "no mean": "draws are decoded better than the mean code itself: your means learned nothing from the likelihood, "
    "whose gradient must reach them through the draw",
    "no width": "all your posteriors are as wide as the prior, as if only the divergence had trained their width: the "
    "likelihood's gradient must reach log_var through the draw",
    "cheap": "your codes say more than is worth its price: in the loss the divergence counts for less than it should "
    "at the end of training. Look at its weight, its factor in front, and what you sum or average",
    "dear": "your codes say less than would pay: in the loss the divergence counts for more than it should at the end "
    "of training, or the draw is of another width than log_var says. Look at its weight, its factor in front, "
    "and where the root is taken",
    "slow": "the bound is above the mean image's, and far from where so many steps should bring it: see that gradients "
    "are cleared before every step, and that the learning rate is neither too small nor too large",
    "untrained": "the bound on the images that were trained on is no better than that of one mean image: see that "
    "gradients are cleared and every step moves all weights, that the loss falls, and that the learning rate suits",
}


def _networks(x, arrays):
    """Mean and log variance of images x (N, pixels), and the decoder: mean log-likelihood of x from codes (N, D)."""
    W1, b1, W2, b2, W3, b3, W4, b4 = (torch.from_numpy(arrays[name]).double() for name in NAMES)

    def likelihood(z):
        return bernoulli_log_likelihood(x, (z @ W3.T + b3).relu() @ W4.T + b4).mean()

    return *((x @ W1.T + b1).relu() @ W2.T + b2).chunk(2, 1), likelihood


def _noise(like, seed, draws):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn((draws, *like.shape), generator=rng, dtype=torch.double)


def _bound(x, arrays, seed, *, swap=False, draws=3):
    """Log-likelihood, its value at the mean code, and divergence, each the mean over images x (N, pixels), in nats."""
    mean, log_var, likelihood = _networks(x, arrays)
    if swap:
        mean, log_var = log_var, mean
    standard = torch.zeros(mean.shape[1], dtype=torch.double)
    fit = np.mean([likelihood(reparametrise(mean, log_var, epsilon)).item() for epsilon in _noise(mean, seed, draws)])
    return fit, likelihood(mean).item(), gaussian_kl(mean, log_var, standard, standard).mean().item()


def _exchange(x, arrays, seed, draws=16):
    """What a nat of divergence wins in log-likelihood at the margin; and how far widths are from the prior's.

    Multiply all variances, or all means, by a factor near one. At the optimum of a loss with weight β both terms change
    in the ratio β. The ratios are returned for variances and means, then the divergence's derivative by a latent's log
    variance, which is zero where the width is the prior's.
    """
    mean, log_var, likelihood = _networks(x, arrays)
    standard = torch.zeros(mean.shape[1], dtype=torch.double)
    factors = torch.zeros(2, dtype=torch.double, requires_grad=True)  # logarithms, of variances and means
    mean, log_var = mean * factors[1].exp(), log_var + factors[0]
    fit = torch.stack([likelihood(reparametrise(mean, log_var, e)) for e in _noise(mean, seed, draws)]).mean()
    kl = gaussian_kl(mean, log_var, standard, standard).mean()
    (won,), (paid,) = torch.autograd.grad(fit, [factors], retain_graph=True), torch.autograd.grad(kl, [factors])
    by_width, by_mean = (won / paid).tolist()
    return by_width, by_mean, abs(paid[0].item()) / log_var.shape[1]


def _of_the_mean_image(train, x):
    """Log-likelihood of images x, in nats, under the mean of other images; the mean as of two more, white and black."""
    p = (train.sum(0) + 1) / (len(train) + 2)
    return bernoulli_log_likelihood(x, torch.logit(p).expand_as(x)).mean().item()


def _fresh(arrays, *layers):
    """Whether layers, each by the names of weight and bias, lie just where `nn.Linear` draws them."""
    edges = [1 / math.sqrt(arrays[W].shape[1]) for W, _ in layers]
    furthest = [max(np.abs(arrays[name]).max() for name in layer) for layer in layers]
    return all(0.9 < far / edge < 1 + 1e-4 for far, edge in zip(furthest, edges, strict=True))


def _still(arrays):
    """Whether the decoder has learned and the encoder has not."""
    return _fresh(arrays, ("W1", "b1"), ("W2", "b2")) and not _fresh(arrays, ("W3", "b3"), ("W4", "b4"))


def _what_holds_back(x, arrays, floor):
    """The hint for a model that learned something and not what it could; None where nothing is to be said."""
    fit, at_mean, kl = _bound(x, arrays, 0)
    enough = floor + LEARNED * abs(floor)
    if _still(arrays):
        return TRAIN_HINTS["still"]
    if at_mean > enough and at_mean - fit > 0.4 * (at_mean - floor):
        return TRAIN_HINTS["no noise"]
    if fit - kl < enough:
        return TRAIN_HINTS["slow"]
    if at_mean < min(fit, floor):
        return TRAIN_HINTS["no mean"]
    by_width, by_mean, narrowed = _exchange(x, arrays, 0)
    if narrowed < AS_WIDE:
        return TRAIN_HINTS["no width"]
    if by_mean < 0:  # both terms would win by another scale
        return TRAIN_HINTS["slow"]
    if by_width < CHEAP:
        return TRAIN_HINTS["cheap"]
    return TRAIN_HINTS["dear"] if by_width > DEAR else None


def _judge_train(case, outputs):
    """Whether the arrays are a model of the form asked for and, given a hundred steps, one that learned.

    What is graded must have a bound on the given images above the mean image's likelihood, and no more: its points say
    the rest. The public check also names what holds a model back.
    """
    x = torch.from_numpy(case.given["images"]).double().flatten(1)
    d, latent = x.shape[1], case.given["latent"]
    W1, W2, W3, W4 = (outputs[name] for name in NAMES[::2])
    if any(W.ndim != 2 for W in (W1, W2, W3, W4)) or any(outputs[name].ndim != 1 for name in NAMES[1::2]):
        return "the weights W must have two dimensions and the biases b one"
    if W1.shape[0] == d != W1.shape[1] and W4.shape[1] == d != W4.shape[0]:
        return TRAIN_HINTS["transposed"]
    if W2.shape[0] != 2 * latent:
        return TRAIN_HINTS["halves"]
    if W3.shape[1] != latent:
        return TRAIN_HINTS["reads"]
    h, g = W1.shape[0], W4.shape[1]
    shapes = ((h, d), (h,), (2 * latent, h), (2 * latent,), (g, latent), (g,), (d, g), (d,))
    for name, shape in zip(NAMES, shapes, strict=True):
        if outputs[name].shape != shape:
            return f"{name} must have shape {shape} beside the other arrays, got {outputs[name].shape}"
    if max(h, g) > MOST_HIDDEN:
        return TRAIN_HINTS["hidden"]
    if case.given["steps"] < TRAINED:
        return None
    floor = _of_the_mean_image(x, x)
    fit, at_mean, kl = _bound(x, outputs, 0)
    if fit - kl > floor + WON:
        return None if "images" in case.hidden else _what_holds_back(x, outputs, floor)
    swapped, _, price = _bound(x, outputs, 0, swap=True)
    if swapped - price > max(floor, fit - kl):
        return TRAIN_HINTS["order"]
    if _still(outputs):
        return TRAIN_HINTS["still"]
    if kl < SILENT and fit > (1 + NEAR) * floor:
        return TRAIN_HINTS["collapsed"]
    if fit > floor + WON or kl > -floor:  # more nats than the image itself takes
        return TRAIN_HINTS["no price"]
    return TRAIN_HINTS["no noise" if at_mean > floor + WON else "untrained"]


def _score_train(case, outputs):
    """Nats an image by which the bound on hidden images exceeds the log-likelihood of the given images' mean."""
    train, hidden = (
        torch.from_numpy(images).double().flatten(1) for images in (case.given["images"], case.hidden["images"])
    )
    fit, _, kl = _bound(hidden, outputs, case.hidden["seed"])
    gain = fit - kl - _of_the_mean_image(train, hidden)
    if not math.isfinite(gain):
        return Score(0.0, "on hidden images your bound is not a finite number")
    part = float(np.clip((gain - LINEAR_LEVEL) / (GOOD_LEVEL - LINEAR_LEVEL), 0, 1))
    remark = f"on hidden images your bound lies {gain:.0f} nats above the mean image's log-likelihood"
    hint = None
    if gain > 0 and part < 0.9:
        hint = _what_holds_back(train[:200], outputs, _of_the_mean_image(train, train[:200]))
    return Score(part, f"{remark}. {hint[0].upper()}{hint[1:]}" if hint else remark)


TRAINED = 100  # steps after which learning must show
WON, SILENT = 0.5, 0.1  # nats: more than chance wins over the mean image; less than a code that says anything
NEAR = 0.02  # of the mean image's log-likelihood, by which a decoder that was given nothing misses it
LEARNED = 0.14  # of it, that plain training wins: Adam at 1e-3 with 32 units 0.17 to 0.36, at 1e-4 with 256 below 0.12
AS_WIDE = 0.03  # of a nat: widths that only the divergence trained are below 0.02, learned ones above 0.1
# What a nat of divergence wins: 0.65 to 1.35 for right losses and learning rates of 3e-4 to 1e-2; at β = 0.3, or with a
# mean over three numbers of a code, 0.36 at most; at β = 2, or with a variance for a standard deviation, 1.9 at least.
CHEAP, DEAR = 0.5, 1.6


def _train_changed(
    *,
    hidden=16,
    beta=1.0,
    average=False,
    learns=True,
    lr=1e-2,
    decoder_alone=False,
    draw=reparametrise,
    ends=lambda arrays: arrays,
    swap=False,
    wide=False,
):
    """A small model trained in the plain way, with one thing changed."""

    def train(images, latent, steps, seed):
        torch.manual_seed(seed)
        x = images.flatten(1)
        encoder, decoder = make_vae(x.shape[1], latent, hidden)
        if wide:
            decoder[0] = nn.Linear(2 * latent, hidden)
        weights = [*encoder.parameters(), *decoder.parameters()]
        optimizer = torch.optim.Adam(decoder.parameters() if decoder_alone else weights, lr=lr)
        for _ in range(steps):
            mean, log_var = encoder(x).chunk(2, 1)
            if swap:
                mean, log_var = log_var, mean
            z = draw(mean, log_var, torch.randn(mean.shape))
            fit = bernoulli_log_likelihood(x, decoder(torch.cat([mean, log_var], 1) if wide else z))
            price = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1)
            loss = (beta * price - (fit / x.shape[1] if average else fit)).mean()
            optimizer.zero_grad()
            loss.backward()
            if learns:
                optimizer.step()
        return ends(tuple(w.detach() for w in weights))

    return train


def _means_only(arrays):
    W1, b1, W2, b2, *decoder = arrays
    return W1, b1, W2[: len(W2) // 2], b2[: len(b2) // 2], *decoder


TRAIN = Task(
    name="train_vae",
    title="a model whose bound is high on images it never saw",
    points=4,
    cases=_train_cases,
    solution=train_vae,
    mistakes=(
        Mistake(
            TRAIN_HINTS["transposed"],
            _train_changed(ends=lambda arrays: tuple(w.T if w.ndim == 2 else w for w in arrays)),
        ),
        Mistake(TRAIN_HINTS["halves"], _train_changed(ends=_means_only)),
        Mistake(TRAIN_HINTS["reads"], _train_changed(wide=True)),
        Mistake(TRAIN_HINTS["hidden"], _train_changed(hidden=2 * MOST_HIDDEN, learns=False)),
        Mistake(TRAIN_HINTS["order"], _train_changed(swap=True)),
        Mistake(TRAIN_HINTS["collapsed"], _train_changed(average=True)),
        Mistake(TRAIN_HINTS["no price"], _train_changed(beta=0.0)),
        Mistake(TRAIN_HINTS["untrained"], _train_changed(learns=False)),
        Mistake(TRAIN_HINTS["no noise"], _train_changed(draw=lambda mean, log_var, epsilon: mean)),
        Mistake(TRAIN_HINTS["still"], _train_changed(hidden=128, decoder_alone=True)),
        Mistake(
            TRAIN_HINTS["no mean"],
            _train_changed(draw=lambda mean, log_var, epsilon: reparametrise(mean.detach(), log_var, epsilon)),
        ),
        Mistake(
            TRAIN_HINTS["no width"],
            _train_changed(draw=lambda mean, log_var, epsilon: reparametrise(mean, log_var.detach(), epsilon)),
        ),
        Mistake(TRAIN_HINTS["cheap"], _train_changed(beta=0.3)),
        Mistake(TRAIN_HINTS["dear"], _train_changed(beta=4.0)),
        Mistake(TRAIN_HINTS["slow"], _train_changed(hidden=256, lr=1e-4)),
    ),
    returns=NAMES,
    judge=_judge_train,
    score=_score_train,
    graded=_graded_train_cases,
    seconds=60.0,
)

TASKS = [REPARAMETRISE, GAUSSIAN_KL, BERNOULLI, ELBO, TRAIN, IMPORTANCE, TRAVERSE, LOG_MIXTURE]
