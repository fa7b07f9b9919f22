"""Precision: bf16 where the hardware has it and the network gains, float32 for what loses digits, and no leaks."""

import warnings

import pytest
import torch
from torch import nn

from course_utils.models import ConvEncoder, DenseAutoencoder, ViT
from course_utils.precision import WIDE, autocast, choose_precision, full_precision, has_native_bf16


@pytest.fixture
def hardware(monkeypatch):
    """A function that pretends: which of processor and CUDA device multiply bf16 themselves."""

    def pretend(*, cpu=False, cuda=False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu)
        # older cards emulate: they answer yes unless asked for the real thing
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or cuda
        )

    return pretend


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("cuda", [False, True])
def test_bf16_is_native_where_the_device_itself_has_it(hardware, cpu, cuda):
    hardware(cpu=cpu, cuda=cuda)
    for name, expected in (("cpu", cpu), ("cuda", cuda), ("cuda:1", cuda), ("mps", False)):
        assert has_native_bf16(name) is expected
        assert has_native_bf16(torch.device(name)) is expected


def test_asking_for_a_device_this_machine_may_not_have_is_no_error():
    for name in ("cpu", "cuda", "mps"):
        assert has_native_bf16(name) in (True, False)


NETWORKS = {
    "a wide encoder": (lambda: ConvEncoder(1, width=32), True),
    "a wide convolution deep inside": (lambda: nn.Sequential(nn.ModuleList([nn.Conv2d(1, WIDE, 1)])), True),
    "a wide ViT": (lambda: ViT(dim=192, depth=1), True),
    "the course's encoder": (lambda: ConvEncoder(1), False),
    "the course's ViT": (lambda: ViT(), False),
    "a convolution one channel short": (lambda: nn.Conv2d(WIDE, WIDE - 1, 1), False),
    "dense layers, however wide": (lambda: DenseAutoencoder((4, 2 * WIDE, 2)), False),
    "no layers": (nn.Identity, False),
}


@pytest.mark.parametrize(("make", "gains"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("native", [False, True])
def test_bf16_is_chosen_only_for_networks_that_gain_on_hardware_that_has_it(hardware, make, gains, device, native):
    hardware(**{device: native})
    assert choose_precision(make(), device) == ("bf16-mixed" if gains and native else "32-true")


def test_one_devices_bf16_does_not_speak_for_another(hardware):
    hardware(cpu=True, cuda=False)
    assert choose_precision(nn.Conv2d(1, WIDE, 1), "cuda") == "32-true"
    hardware(cpu=False, cuda=True)
    assert choose_precision(nn.Conv2d(1, WIDE, 1), "cpu") == "32-true"


# --- autocast


def operands():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(8, 16, generator=rng), torch.randn(16, 8, generator=rng)


def test_bf16_mixed_multiplies_in_bf16_and_keeps_weights_and_gradients_in_float32():
    a, b = operands()
    layer = nn.Linear(16, 8, bias=False)
    layer.weight.data = b.T.contiguous()
    with autocast("bf16-mixed", "cpu"):
        product = layer(a)
    assert product.dtype == torch.bfloat16
    assert torch.equal(product, a.bfloat16() @ b.bfloat16())
    product.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_32_true_multiplies_in_float32_even_inside_a_bf16_context():
    a, b = operands()
    with autocast("32-true", "cpu"):
        assert torch.equal(a @ b, torch.matmul(a, b))
        assert (a @ b).dtype == torch.float32
    with autocast("bf16-mixed", "cpu"):
        with autocast("32-true", "cpu"):
            assert (a @ b).dtype == torch.float32
        assert (a @ b).dtype == torch.bfloat16
    assert (a @ b).dtype == torch.float32


# --- full precision


@full_precision
def look(*args, **kwargs):
    """What arrives, and the dtype of a product taken inside."""
    a, b = operands()
    return args, kwargs, (a @ b).dtype


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_arrive_as_float32_by_place_and_by_name(half):
    x = torch.tensor([1 / 3, 2.0]).to(half)
    (first, second), named, _ = look(x, 2, z=x, note="z")
    assert first.dtype == named["z"].dtype == torch.float32
    assert torch.equal(first, x.float())
    assert (second, named["note"]) == (2, "z")
    assert x.dtype == half


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_other_tensors_arrive_as_they_are(dtype):
    x = torch.ones(2, dtype=dtype)
    (first,), named, _ = look(x, mask=x)
    assert first is x
    assert named["mask"] is x


@pytest.mark.parametrize("call", [lambda x: look(x), lambda x: look(z=x), lambda x: look("first", x), lambda x: look()])
def test_autocast_is_off_inside_and_on_again_afterwards(call):
    a, b = operands()
    with autocast("bf16-mixed", "cpu"):
        assert call(a)[2] == torch.float32
        assert (a @ b).dtype == torch.bfloat16


def test_autocast_is_on_again_after_an_error():
    @full_precision
    def fail(x):
        raise ValueError("as it should")

    a, b = operands()
    with autocast("bf16-mixed", "cpu"):
        with pytest.raises(ValueError, match="as it should"):
            fail(a)
        assert (a @ b).dtype == torch.bfloat16


def test_gradients_pass_through_the_widening_in_the_dtype_of_the_tensor():
    @full_precision
    def square(x):
        return (x**2).sum()

    x = torch.tensor([1.0, -3.0], dtype=torch.bfloat16, requires_grad=True)
    square(x).backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.tolist() == [2.0, -6.0]


def test_the_decorated_function_keeps_its_name_and_its_words():
    assert look.__name__ == "look"
    assert look.__doc__.startswith("What arrives")


def test_nothing_warns_on_a_machine_without_an_accelerator():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(torch.ones(2))
        choose_precision(nn.Conv2d(1, WIDE, 1), "cpu")
