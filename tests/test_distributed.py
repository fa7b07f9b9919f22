"""Two gloo processes on this machine against one process with the joined batch. Run as a script, this file is a worker.

One launch does everything, each worker writes what it found to a file, and the tests compare.
"""

import copy
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils.distributed import GlobalBatchNorm, gather, rank, use_global_batch_norm, world_size
from course_utils.methods import Inpainting, Rotation, SimCLR
from course_utils.models import ConvEncoder
from course_utils.train import fit

WORLD = 2
DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(24, 1, 12, 12, generator=DRAW)
ROWS = torch.randn(8, 3, generator=DRAW, dtype=torch.float64)
MAPS = torch.randn(8, 3, 5, 5, generator=DRAW, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.1]).view(3, 1, 1) + 2
OPTIONS = {"steps": 5, "batch_size": 8, "lr": 0.05, "seed": 2, "progress": False, "precision": "32-true"}
NORMS = {
    "rows": (nn.BatchNorm1d, ROWS, {}),
    "maps": (nn.BatchNorm2d, MAPS, {}),
    "slow": (nn.BatchNorm2d, MAPS, {"momentum": 0.01, "eps": 0.1}),
    "cumulative": (nn.BatchNorm1d, ROWS, {"momentum": None}),
    "bare": (nn.BatchNorm2d, MAPS, {"affine": False}),
    "stateless": (nn.BatchNorm1d, ROWS, {"track_running_stats": False}),
}


class Views:
    """Two views without chance: the image, then its darker mirror image."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, rng):
        self.calls += 1
        return x if self.calls % 2 else 0.7 * x.flip(3) + 0.1


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ConvEncoder(1, width=4)
        return {
            "simclr": lambda: SimCLR(encoder, view=Views(), projection_dim=8),
            "rotation": lambda: Rotation(encoder, view=lambda x, rng: x),
            "inpainting": lambda: Inpainting(encoder, size=12, patch=3, fill=0.0),  # its value tells what is hidden
        }[name]()


def sgd(parameters, *, lr, weight_decay):
    """Not Adam, which makes a large step of a gradient that is nought but for rounding."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9)


def trained(name, **options):
    method = build(name)
    history = fit(method, IMAGES, optimizer=sgd, **OPTIONS | options)
    gradients = {key: parameter.grad.clone() for key, parameter in method.named_parameters()}
    return {"rows": history.rows, "state": method.state_dict(), "gradients": gradients}


def normalised(norm, x, begin, end):
    """Forward twice, and backward through a loss that weighs every element, on rows begin to end of the joined x."""
    weights = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x)
    part = x[begin:end].clone().requires_grad_()
    norm(2 * x[begin:end] + 1)
    y = norm(part)
    (weights[begin:end] * y**3).sum().backward()
    gradients = [parameter.grad for parameter in norm.parameters()]
    state = dict(norm.state_dict())
    return {"y": y.detach(), "x": part.grad, "parameters": gradients, "state": state, "later": norm.eval()(x[:4])}


def build_norm(kind, options):
    norm = kind(3, **options).double()
    for number, parameter in enumerate(norm.parameters()):
        nn.init.constant_(parameter, 0.5 + number)
    return norm


def squared_similarities(z):
    return ((z @ z.T) ** 2 * torch.arange(1.0, 1 + z.shape[0] ** 2).view(len(z), -1)).sum()


def uneven(me):
    """Gathered tensors that are not contiguous: a transposed one, and every second column."""
    table = 10 * me + torch.arange(6).view(2, 3)
    return gather(table.T), gather(table[:, ::2])


# --- the worker


def message(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def work(folder: Path) -> None:
    found = {}
    checkpoints = folder / "checkpoints"
    saved = []
    save = torch.save
    torch.save = lambda state, file: (saved.append(len(state["rows"])), save(state, file))
    found["simclr"] = trained("simclr", checkpoint=checkpoints / "whole.pt", checkpoint_every=2)
    torch.save = save
    me = found["rank"] = rank()
    found["world_size"], found["saved"], found["files"] = world_size(), saved, sorted(os.listdir(checkpoints))
    found["norms"] = [type(part).__name__ for part in trained_modules("simclr")]
    found["rotation"] = trained("rotation")

    def stop(step, _):
        if step == 4:
            raise RuntimeError("stopped")

    found["stopped"] = message(
        lambda: trained("simclr", checkpoint=checkpoints / "cut.pt", checkpoint_every=3, on_step=stop)
    )
    again = build("simclr")
    again.view.calls = 0
    steps = []
    history = fit(
        again,
        IMAGES,
        optimizer=sgd,
        checkpoint=checkpoints / "cut.pt",
        on_step=lambda *a: steps.append(a[0]),
        **OPTIONS,
    )
    found["resumed"] = {"rows": history.rows, "state": again.state_dict(), "steps": steps}
    if me == 0:
        (checkpoints / "text.pt").write_text("no checkpoint")
    found["refused"] = {
        "text": message(lambda: trained("simclr", checkpoint=checkpoints / "text.pt")),
        "seed": message(lambda: trained("simclr", checkpoint=checkpoints / "whole.pt", seed=3)),
        "indivisible": message(lambda: trained("simclr", batch_size=7)),
    }

    def interrupt(step, _):
        if step == 2 and me == 1:
            signal.raise_signal(signal.SIGINT)

    method = build("rotation")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    history = fit(method, IMAGES, optimizer=sgd, on_step=interrupt, **OPTIONS)
    found["interrupted"] = history.interrupted, len(history)

    class Breaks(Rotation):
        def training_loss(self, batch, rng):
            loss, logs = super().training_loss(batch, rng)
            return loss * (torch.nan if me == 1 else 1), logs

    breaks = Breaks(ConvEncoder(1, width=4), view=lambda x, rng: x)
    found["broken"] = message(lambda: fit(breaks, IMAGES, **OPTIONS))

    drawn = []
    spying = build("inpainting")
    hidden = spying.forward
    spying.forward = lambda masked: (drawn.append(masked.clone()), hidden(masked))[1]
    fit(spying, IMAGES, **OPTIONS | {"steps": 1})
    found["masked"] = drawn[0]

    z = ROWS.chunk(WORLD)[me].clone().requires_grad_()
    joined = gather(z)
    squared_similarities(joined).backward()
    found["gather"] = {"joined": joined.detach(), "gradient": z.grad}
    found["labels"] = gather(torch.arange(me, me + 3)), *uneven(me)

    found["batch norm"] = {}
    for name, (kind, x, options) in NORMS.items():
        norm = nn.Sequential(build_norm(kind, options))
        use_global_batch_norm(norm)
        found["batch norm"][name] = normalised(norm[0], x, 4 * me, 4 * me + 4)
    half = GlobalBatchNorm(3)(MAPS.bfloat16().chunk(WORLD)[me])
    found["half"] = half.detach()
    torch.save(found, folder / f"{me}.pt")


def trained_modules(name):
    method = build(name)
    use_global_batch_norm(method)
    return [part for part in method.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


# --- the tests


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What the processes of one launch found, in order of rank."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    common |= {"GROUP_RANK": 0, "OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": "", "COURSE_PROGRESS": 0}
    processes, logs = [], [folder / f"{number}.log" for number in range(WORLD)]
    for number, log in enumerate(logs):
        environment = {key: str(value) for key, value in (common | {"RANK": number, "LOCAL_RANK": number}).items()}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, str(folder)],
                env=os.environ | environment,
                stdout=log.open("w"),
                stderr=subprocess.STDOUT,
            )
        )
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * WORLD, "\n".join(log.read_text() for log in logs)
    return [torch.load(folder / f"{number}.pt") for number in range(WORLD)]


@pytest.fixture(scope="module")
def alone():
    return {name: trained(name) for name in ("simclr", "rotation")}


def close(found, expected, rtol=1e-10, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_every_process_knows_its_place(workers):
    assert [found["rank"] for found in workers] == [0, 1]
    assert [found["world_size"] for found in workers] == [2, 2]
    assert (rank(), world_size()) == (0, 1)


@pytest.mark.parametrize("name", ["simclr", "rotation"])
def test_two_processes_train_as_one_with_the_joined_batch(name, workers, alone):
    for found in workers:
        assert found[name]["rows"] == workers[0][name]["rows"]
        for part in ("rows", "gradients", "state"):
            close(found[name][part], alone[name][part], rtol=1e-3, atol=1e-4)
    largest = max(gradient.abs().max().item() for gradient in alone[name]["gradients"].values())
    assert largest > 0.1  # far above what rounding may change


def test_every_batch_norm_is_joined(workers):
    for found in workers:
        assert found["norms"] == ["GlobalBatchNorm"] * 7


def test_one_process_writes_the_checkpoint_and_every_process_resumes_from_it(workers):
    assert [found["saved"] for found in workers] == [[2, 4, 5], []]
    for found in workers:
        assert found["files"] == ["whole.pt"]
        assert found["stopped"] == "RuntimeError: stopped"
        assert found["resumed"]["steps"] == [4, 5]
        assert found["resumed"]["rows"] == found["simclr"]["rows"]
        assert all(
            torch.equal(found["resumed"]["state"][key], value) for key, value in found["simclr"]["state"].items()
        )


def test_every_process_refuses_what_is_to_be_refused(workers):
    for found in workers:
        assert "ValueError" in found["refused"]["text"]
        assert "text.pt is not a checkpoint of this course" in found["refused"]["text"]
        assert "belongs to a run with seed 2; this one has seed 3" in found["refused"]["seed"]
        assert found["refused"]["indivisible"] == "ValueError: batch_size must divide by the 2 processes, got 7"


def test_an_interrupt_of_one_process_stops_all_after_the_same_step(workers):
    assert [found["interrupted"] for found in workers] == [(True, 2)] * 2


def test_a_loss_that_is_not_finite_in_one_process_stops_all(workers):
    for found in workers:
        assert found["broken"].startswith("FloatingPointError: the loss became nan at step 1 ")


def test_processes_draw_different_randomness_on_different_images(workers):
    first, second = (found["masked"] for found in workers)
    assert not torch.equal(first == 0, second == 0)
    for masked in (first, second):
        assert ((masked == 0).float().mean((1, 2, 3)) == 0.25).all()
    images = [
        next(i for i, x in enumerate(IMAGES) if torch.equal(x[seen != 0], seen[seen != 0]))
        for seen in torch.cat([first, second])
    ]
    assert len(set(images)) == 8


def test_gather_joins_the_rows_in_order_of_rank_and_sums_what_all_ask_of_them(workers):
    z = ROWS.clone().requires_grad_()
    squared_similarities(z).backward()
    for found, part in zip(workers, z.grad.chunk(WORLD), strict=True):
        assert torch.equal(found["gather"]["joined"], z.detach())
        close(found["gather"]["gradient"], WORLD * part)
        assert found["labels"][0].tolist() == [0, 1, 2, 1, 2, 3]
        assert found["labels"][1].tolist() == [[0, 3], [1, 4], [2, 5], [10, 13], [11, 14], [12, 15]]
        assert found["labels"][2].tolist() == [[0, 2], [3, 5], [10, 12], [13, 15]]


@pytest.mark.parametrize("name", NORMS)
def test_global_batch_norm_is_batch_norm_of_the_joined_batch(name, workers):
    kind, x, options = NORMS[name]
    expected = normalised(build_norm(kind, options), x, 0, 8)
    found = [worker["batch norm"][name] for worker in workers]
    close(torch.cat([part["y"] for part in found]), expected["y"])
    close(torch.cat([part["x"] for part in found]), expected["x"])
    for number, gradient in enumerate(expected["parameters"]):
        close(sum(part["parameters"][number] for part in found), gradient)
    for part in found:
        assert part["state"].keys() == expected["state"].keys()
        close(part["state"], expected["state"])
        if options.get("track_running_stats", True):
            close(part["later"], expected["later"])


def test_global_batch_norm_of_half_precision_keeps_statistics_in_float32(workers):
    y = torch.cat([found["half"] for found in workers])
    assert y.dtype == torch.bfloat16
    expected = nn.BatchNorm2d(3)(MAPS.bfloat16().float())
    assert torch.equal(y, expected.bfloat16())


# --- one process


def test_with_one_process_gather_and_global_batch_norm_do_nothing_new():
    z = ROWS.clone().requires_grad_()
    assert gather(z) is z
    for kind, x, options in NORMS.values():
        norm = nn.Sequential(build_norm(kind, options))
        plain = copy.deepcopy(norm)
        use_global_batch_norm(norm)
        assert isinstance(norm[0], GlobalBatchNorm)
        assert torch.equal(norm(x), plain(x))
        assert all(map(torch.equal, norm.state_dict().values(), plain.state_dict().values()))


def test_replacing_batch_norms_keeps_parameters_buffers_modes_and_what_is_not_batch_norm():
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3)), nn.BatchNorm1d(3))
    module[2].eval()
    before, parameters = module.state_dict(keep_vars=True), list(module.parameters())
    linear, layer_norm = module[0], module[1][1]
    use_global_batch_norm(module)
    once = list(module.modules())
    use_global_batch_norm(module)
    assert once == list(module.modules())
    assert module.state_dict(keep_vars=True).keys() == before.keys()
    assert all(value is before[name] for name, value in module.state_dict(keep_vars=True).items())
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert module[0] is linear
    assert module[1][1] is layer_norm
    assert (module[1][0].training, module[2].training) == (True, False)


def test_global_batch_norm_says_which_inputs_it_takes():
    with pytest.raises(ValueError, match=r"batch norm needs \(N, C, ...\) inputs, got \(3,\)"):
        GlobalBatchNorm(3)(torch.ones(3))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
