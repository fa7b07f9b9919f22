"""Reconstruction against NumPy and closed forms in float64, their invariances, and their refusals."""

import math

import numpy as np
import pytest
import torch

from course_utils.losses import reconstruction


def draw(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(2))


def test_squared_error_is_numpys():
    x_hat, x = draw(3, 5)
    expected = ((x_hat.numpy() - x.numpy()) ** 2).mean()
    assert reconstruction(x_hat, x).item() == pytest.approx(expected)
    assert reconstruction(x_hat, x, kind="mse").item() == pytest.approx(expected)
    assert reconstruction(x, x).item() == 0


def test_cross_entropy_is_the_bernoulli_log_likelihood_of_logits():
    logits, x = draw(3, 5)
    x = torch.sigmoid(x)
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -(x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p)).mean()
    assert reconstruction(logits, x, kind="bce").item() == pytest.approx(expected)


def test_cross_entropy_is_finite_for_extreme_logits_and_black_and_white_targets():
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    loss = reconstruction(logits, torch.tensor([0.0, 1.0, 1.0, 0.0]), kind="bce")
    loss.backward()
    assert loss.item() == pytest.approx(5e3)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_a_mask_restricts_the_mean_to_its_true_elements(kind):
    rng = torch.Generator().manual_seed(0)
    x_hat, x = torch.rand(2, 3, 4, 4, generator=rng), torch.rand(2, 3, 4, 4, generator=rng)
    mask = torch.rand(2, 1, 4, 4, generator=rng) < 0.4  # one for all channels
    each = [
        reconstruction(x_hat[i, c, r, k], x[i, c, r, k], kind=kind)
        for i in range(2)
        for c in range(3)
        for r in range(4)
        for k in range(4)
        if mask[i, 0, r, k]
    ]
    torch.testing.assert_close(reconstruction(x_hat, x, kind=kind, mask=mask), torch.stack(each).mean())
    everywhere = torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(
        reconstruction(x_hat, x, kind=kind, mask=everywhere), reconstruction(x_hat, x, kind=kind)
    )


def test_what_the_mask_leaves_out_has_no_gradient():
    x_hat, x = draw(2, 4)
    mask = torch.tensor([[True, False, False, True], [False, False, True, False]])
    x_hat.requires_grad_()
    reconstruction(x_hat, x, mask=mask).backward()
    assert torch.equal(x_hat.grad != 0, mask)
    torch.testing.assert_close(x_hat.grad, torch.where(mask, 2 * (x_hat - x).detach() / 3, 0.0))


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_reconstruction_has_the_gradient_of_its_value(kind):
    x_hat, x = draw(3, 4)
    x = torch.sigmoid(x)
    mask = torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(lambda a: reconstruction(a, x, kind=kind, mask=mask), x_hat.requires_grad_())


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_reconstruction_of_half_precision_is_computed_in_float32(kind):
    x_hat, x = (torch.sigmoid(part).bfloat16() for part in draw(50, 40))
    loss = reconstruction(x_hat, x, kind=kind)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reconstruction(x_hat.double(), x.double(), kind=kind).item(), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reconstruction(x_hat, x, kind=kind), loss)


def test_reconstruction_is_nan_where_an_input_is_and_the_mask_can_leave_it_out():
    x_hat, x = draw(2, 3)
    x[0, 0] = math.nan
    assert reconstruction(x_hat, x).isnan()
    assert reconstruction(x_hat, x, mask=~x.isnan()).isfinite()


@pytest.mark.parametrize(
    ("x_hat", "x", "options", "error", "named"),
    [
        (torch.rand(2, 3), torch.rand(2, 4), {}, ValueError, r"\(2, 3\) and \(2, 4\)"),
        (torch.rand(2, 3), torch.rand(1, 3), {}, ValueError, r"\(2, 3\) and \(1, 3\)"),  # no silent broadcast
        (torch.rand(2, 3), torch.rand(2, 3), {"kind": "mae"}, ValueError, "'mse' or 'bce'.*'mae'"),
        (torch.rand(2, 3), torch.rand(2, 3), {"mask": torch.zeros(2, 3, dtype=torch.bool)}, ValueError, "mask.*0"),
        (torch.rand(2, 3), torch.rand(2, 3), {"mask": torch.ones(2, 3)}, ValueError, "mask.*float32"),
        (torch.rand(2, 3), torch.rand(2, 3), {"mask": torch.ones(2, 4) > 0}, ValueError, r"mask.*\(2, 4\)"),
        (torch.ones(2, 3).byte(), torch.rand(2, 3), {}, TypeError, "x_hat.*uint8"),
        (torch.rand(2, 3), torch.ones(2, 3).byte(), {}, TypeError, "x .*uint8"),
        ([1.0], torch.rand(1), {}, TypeError, "x_hat.*list"),
    ],
)
def test_reconstruction_says_what_came_and_what_was_wanted(x_hat, x, options, error, named):
    with pytest.raises(error, match=named):
        reconstruction(x_hat, x, **options)
