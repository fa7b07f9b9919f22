"""The training loop against loops written out by hand, closed forms, and its own uninterrupted self."""

import copy
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_utils import train
from course_utils.methods import Autoencoder, Method
from course_utils.models import ConvEncoder, DenseAutoencoder
from course_utils.train import History, fit

N = 12
X = torch.cat([torch.arange(N)[:, None], torch.randn(N, 3, generator=torch.Generator().manual_seed(0))], 1)


class Tiny(Method):
    """Batch norm, dropout, noise from the generator and a moving average; it keeps what it was given."""

    def __init__(self, width=6, dropout=0.5):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
            self.head = nn.Linear(width, 4)
        self.register_buffer("average", torch.zeros(4))
        self.rows, self.noise, self.progress, self.seen = [], [], [], []

    def training_loss(self, batch, rng):
        noise = torch.randn(batch.shape, generator=rng)
        self.rows.append(batch[:, 0].int().tolist())
        self.noise.append(noise)
        self.seen.append((self.training, torch.is_autocast_enabled("cpu")))
        loss = ((self.head(self.encoder(batch + 0.1 * noise)) - batch) ** 2).mean()
        return loss, {"spread": batch.std().item()}

    def after_step(self, progress):
        self.average.lerp_(self.head.bias, 0.1)
        self.progress.append(progress)


def run(method=None, **options):
    method = method or Tiny()
    defaults = {"steps": 7, "batch_size": 4, "seed": 3, "lr": 0.05, "progress": False, "precision": "32-true"}
    return method, fit(method, options.pop("data", X), **defaults | options)


def same(a, b):
    """Bit for bit, through any nesting."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state_in(path):
    """What a checkpoint holds, but for the time it took."""
    return {key: value for key, value in torch.load(path, weights_only=True).items() if key != "seconds"}


def raise_at(last, error=RuntimeError):
    def on_step(step, _):
        if step == last:
            raise error("stopped")

    return on_step


@pytest.fixture
def handler(monkeypatch):
    """Python's own handler of SIGINT, whatever the tests were started under."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


# --- randomness


def test_a_seed_determines_everything_whatever_the_global_state():
    torch.manual_seed(1)
    first, history = run()
    torch.manual_seed(2)
    second, again = run()
    assert history.rows == again.rows
    assert same(first.state_dict(), second.state_dict())


def test_another_seed_gives_other_batches_other_draws_and_another_result():
    (first, history), (second, other) = run(), run(seed=4)
    assert first.rows != second.rows
    assert not torch.equal(first.noise[0], second.noise[0])
    assert history.losses != other.losses


def test_the_seed_alone_determines_dropout_which_differs_between_seeds_and_steps():
    class Drops(Tiny):
        def training_loss(self, batch, rng):
            self.seen.append(self.encoder[3](torch.ones(8, 8)))
            return super().training_loss(batch, rng)

    masks, again, other = (run(Drops(), seed=seed, steps=2)[0].seen[::2] for seed in (0, 0, 1))
    assert same(masks, again)
    assert len({tuple(mask.flatten().tolist()) for mask in masks + other}) == 4


def test_no_two_steps_draw_the_same_noise_and_seeds_do_not_share_it_shifted():
    drawn = [noise for seed in (0, 1, 2) for noise in run(seed=seed, steps=6)[0].noise]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == 18


@pytest.mark.parametrize("ending", ["normal", "error"])
def test_the_global_random_state_is_left_as_found(ending):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    if ending == "error":
        with pytest.raises(RuntimeError, match="stopped"):
            run(on_step=raise_at(2))
    else:
        run(on_step=lambda step, method: torch.rand(step))
    assert torch.equal(torch.rand(3), expected)


def test_random_draws_in_on_step_do_not_change_training():
    assert run()[1].rows == run(on_step=lambda step, method: torch.rand(step))[1].rows


@pytest.mark.parametrize("seed", [-1, 0, 2**70])
def test_any_integer_is_a_seed(seed):
    assert run(seed=seed)[1].rows == run(seed=seed)[1].rows


# --- batches


def joined(lists):
    return [element for part in lists for element in part]


def test_every_epoch_visits_every_example_once_in_a_fresh_order():
    method, _ = run(steps=9)
    epochs = [joined(method.rows[start : start + 3]) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert list(range(N)) not in epochs


def test_a_short_last_batch_is_dropped_and_its_examples_come_in_other_epochs():
    method, _ = run(batch_size=5, steps=40)
    epochs = [joined(method.rows[start : start + 2]) for start in range(0, 40, 2)]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert set(joined(epochs)) == set(range(N))


def test_orders_are_uniform():
    """Each example comes first equally often: 240 epochs of 4 examples, chi-square below its 99.99 % quantile."""
    method, _ = run(data=X[:4], steps=240)
    first = np.bincount([rows[0] for rows in method.rows], minlength=4)
    assert ((first - 60) ** 2 / 60).sum() < 21.1


def test_several_tensors_reach_the_method_as_a_tuple_with_their_rows_together():
    class Pair(Tiny):
        def training_loss(self, batch, rng):
            x, y = batch
            assert torch.equal(x[:, 0].long(), y)
            assert y.dtype == torch.int64
            return super().training_loss(x, rng)

    method, history = run(Pair(), data=(X, torch.arange(N)))
    assert history.losses == run()[1].losses
    assert method.rows == run()[0].rows


def test_data_is_left_as_it_was():
    data = X.clone()
    run(data=data)
    assert torch.equal(data, X)


# --- the step


def rate(step, steps, peak, warmup):
    """Step 1 is the first: a line up to the peak over the rounded warm-up, then half a cosine towards 0."""
    rising = round(warmup * steps)
    if step <= rising:
        return peak * step / rising
    return peak / 2 * (1 + math.cos(math.pi * (step - 1 - rising) / (steps - rising)))


@pytest.mark.parametrize("steps", [1, 2, 9, 20])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 1])
def test_the_learning_rate_rises_in_a_line_and_falls_along_half_a_cosine(steps, warmup):
    _, history = run(steps=steps, warmup=warmup, lr=0.04)
    expected = [rate(step, steps, 0.04, warmup) for step in range(1, steps + 1)]
    assert [row["lr"] for row in history.rows] == pytest.approx(expected, rel=1e-12)
    assert [row["step"] for row in history.rows] == list(range(1, steps + 1))


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adagrad, {})],
)
def test_training_is_the_loop_one_would_write_by_hand(optimizer, options):
    method = Tiny(dropout=0)
    other = copy.deepcopy(method)
    _, history = run(method, optimizer=partial(optimizer, **options), weight_decay=0.01, warmup=0.3, lr=0.02)
    optim = optimizer(other.parameters(), weight_decay=0.01, lr=0.02, **options)
    losses = []
    for step, (rows, noise) in enumerate(zip(method.rows, method.noise, strict=True), start=1):
        x = X[rows]
        loss = ((other.head(other.encoder(x + 0.1 * noise)) - x) ** 2).mean()
        grads = torch.autograd.grad(loss, list(other.parameters()))
        for parameter, grad in zip(other.parameters(), grads, strict=True):
            parameter.grad = grad
        optim.param_groups[0]["lr"] = rate(step, 7, 0.02, 0.3)
        optim.step()
        other.average += 0.1 * (other.head.bias.detach() - other.average)
        losses.append(loss.item())
    torch.testing.assert_close(history.losses, losses)
    torch.testing.assert_close(method.state_dict(), other.state_dict())


def test_adamw_is_the_default_and_its_first_step_has_its_closed_form():
    """After one step from zero moments Adam moves every weight by lr · sign(gradient), and decay shrinks it first."""

    class Slope(Method):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([2.0, -3.0]))

        def training_loss(self, batch, rng):
            return self.w @ torch.tensor([5.0, -0.1]), {}

    method, _ = run(Slope(), steps=1, warmup=0, lr=0.1, weight_decay=0.2)
    expected = torch.tensor([2.0, -3.0]) * (1 - 0.1 * 0.2) - 0.1 * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(method.w.data, expected)


def test_training_runs_in_training_mode_and_ends_in_evaluation_mode():
    method, _ = run(Tiny().eval())
    assert all(training for training, _ in method.seen)
    assert not any(part.training for part in method.modules())


def test_after_step_gets_the_part_done_without_gradients_and_on_step_comes_after_it():
    method, calls = Tiny(), []

    def on_step(step, given):
        assert given is method
        calls.append((step, method.progress[-1], torch.is_grad_enabled(), method.average.clone()))

    run(method, on_step=on_step)
    assert [call[0] for call in calls] == list(range(1, 8))
    assert [call[1] for call in calls] == pytest.approx([step / 7 for step in range(1, 8)])
    assert method.progress[-1] == 1
    assert not method.average.requires_grad
    assert all(call[2] for call in calls)
    assert torch.equal(calls[-1][3], method.average)


def test_the_history_holds_what_the_method_logs_as_plain_numbers():
    class Logs(Tiny):
        def training_loss(self, batch, rng):
            loss, logs = super().training_loss(batch, rng)
            return loss, {"tensor": torch.tensor(0.5), "numpy": np.float64(0.25), **logs}

    method, history = run(Logs())
    assert list(history.rows[0]) == ["step", "loss", "lr", "tensor", "numpy", "spread"]
    assert {type(value) for row in history.rows for value in row.values()} == {int, float}
    assert [row["tensor"] for row in history.rows] == [0.5] * 7
    assert [row["spread"] for row in history.rows] == [X[rows].std().item() for rows in method.rows]


# --- checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.pt"
    method, history = run(checkpoint=path)
    return SimpleNamespace(path=path, method=method, history=history, state=state_in(path))


def test_a_checkpoint_does_not_change_training(whole):
    method, history = run()
    assert history.rows == whole.history.rows
    assert same(method.state_dict(), whole.method.state_dict())


@settings(deadline=None, max_examples=12)
@given(stops=st.lists(st.integers(1, 7), max_size=3), every=st.integers(1, 4))
def test_training_killed_at_any_steps_resumes_to_the_uninterrupted_result_bit_for_bit(
    stops, every, whole, tmp_path_factory
):
    path = tmp_path_factory.mktemp("resumed") / "run.pt"
    for stop in stops:
        try:
            run(checkpoint=path, checkpoint_every=every, on_step=raise_at(stop))
        except RuntimeError:
            torch.manual_seed(stop)
    method, history = run(checkpoint=path, checkpoint_every=every)
    assert history.rows == whole.history.rows
    assert same(method.state_dict(), whole.method.state_dict())
    assert same(state_in(path), whole.state)


def test_resuming_repeats_no_step_before_the_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        run(checkpoint=tmp_path / "run.pt", checkpoint_every=2, on_step=raise_at(5))
    steps = []
    method, _ = run(checkpoint=tmp_path / "run.pt", on_step=lambda step, _: steps.append(step))
    assert steps == [5, 6, 7]
    assert method.rows == run()[0].rows[4:]


def test_a_finished_run_comes_back_without_training(whole):
    before = whole.path.read_bytes()
    method, history = run(checkpoint=whole.path, on_step=raise_at(1))
    assert method.rows == []
    assert history.rows == whole.history.rows
    assert history.seconds == whole.history.seconds
    assert not history.interrupted
    assert same(method.state_dict(), whole.method.state_dict())
    assert not method.training
    assert whole.path.read_bytes() == before


def test_the_state_is_written_every_so_many_steps_and_at_the_end(tmp_path, monkeypatch):
    written, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: (written.append(len(state["rows"])), save(state, file)))
    run(checkpoint=tmp_path / "new" / "folder" / "run.pt", checkpoint_every=3)
    assert written == [3, 6, 7]
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["run.pt"]


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_failing_write_leaves_the_old_checkpoint_and_no_partial_file(failing, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError, match="stopped"):
        run(checkpoint=path, checkpoint_every=2, on_step=raise_at(3))
    before = path.read_bytes()

    def fail(first, second):
        if failing == "write":
            second.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(*((torch, "save", fail) if failing == "write" else (os, "replace", fail)))
    with pytest.raises(OSError, match="disk full"):
        run(checkpoint=path, checkpoint_every=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    assert run(checkpoint=path)[1].rows == run()[1].rows


@pytest.mark.parametrize(
    ("changed", "theirs", "ours"),
    [
        ({"steps": 8}, "steps 7", "steps 8"),
        ({"batch_size": 6}, "batch_size 4", "batch_size 6"),
        ({"seed": 9}, "seed 3", "seed 9"),
        ({"lr": 0.1}, "lr 0.05", "lr 0.1"),
        ({"weight_decay": 0.5}, "weight_decay 0.0001", "weight_decay 0.5"),
        ({"warmup": 0.3}, "warmup 0.1", "warmup 0.3"),
        ({"data": X[:10]}, "examples 12", "examples 10"),
        ({"optimizer": torch.optim.SGD}, "optimizer AdamW", "optimizer SGD"),
        ({"method": Autoencoder(DenseAutoencoder((4, 2)))}, "method Tiny", "method Autoencoder"),
        ({"seed": 9, "lr": 0.1}, "seed 3, lr 0.05", "seed 9, lr 0.1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(changed, theirs, ours, whole):
    before = whole.path.read_bytes()
    sentence = f"{whole.path} belongs to a run with {theirs}; this one has {ours}: give another checkpoint file"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(checkpoint=whole.path, **changed)
    assert whole.path.read_bytes() == before


def test_a_checkpoint_of_a_network_of_another_size_is_refused_and_changes_nothing(whole):
    method = Tiny(width=5)
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(ValueError, match=r"run\.pt belongs to a network of other layers or sizes"):
        run(method, checkpoint=whole.path)
    assert same(method.state_dict(), before)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "tensor", "weights", "folder", "newer"])
def test_a_file_that_is_no_checkpoint_is_refused(kind, whole, tmp_path):
    path = tmp_path / "run.pt"
    content = whole.path.read_bytes()
    {
        "text": lambda: path.write_text("accuracy 0.93"),
        "empty": lambda: path.write_bytes(b""),
        "truncated": lambda: path.write_bytes(content[: len(content) * 2 // 3]),
        "tensor": lambda: torch.save(torch.ones(3), path),
        "weights": lambda: torch.save(whole.method.state_dict(), path),
        "folder": path.mkdir,
        "newer": lambda: torch.save(torch.load(whole.path) | {"version": 99}, path),
    }[kind]()
    expected = "version 99; this one has version 1" if kind == "newer" else "is not a checkpoint of this course: delete"
    with pytest.raises(ValueError, match=rf"run\.pt .*{expected}"):
        run(checkpoint=path)
    assert path.exists()


def test_a_checkpoint_runs_no_code_of_its_own(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"version": 1, "settings": Trap()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        run(checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "sprung").exists()


def test_numpy_numbers_are_kept_and_read_back(tmp_path):
    options = {"steps": np.int64(7), "batch_size": np.int32(4), "seed": np.int64(3), "lr": np.float64(0.05)}
    run(checkpoint=str(tmp_path / "run.pt"), **options)
    assert run(checkpoint=tmp_path / "run.pt", on_step=raise_at(1))[1].rows == run()[1].rows


def test_seconds_are_those_of_all_parts_of_a_run_and_not_of_the_time_between(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock.now)

    class Slow(Tiny):
        def training_loss(self, batch, rng):
            clock.now += 2
            return super().training_loss(batch, rng)

    assert run(Slow())[1].seconds == 14
    with pytest.raises(RuntimeError, match="stopped"):
        run(Slow(), checkpoint=tmp_path / "run.pt", checkpoint_every=3, on_step=raise_at(3 + 1))
    clock.now += 1000
    assert run(Slow(), checkpoint=tmp_path / "run.pt")[1].seconds == 14


# --- interrupts


def interrupt_at(*steps):
    return lambda step, _: signal.raise_signal(signal.SIGINT) if step in steps else None


def test_an_interrupt_ends_training_after_the_step_and_resumes_to_the_same_result(handler, whole, tmp_path):
    path = tmp_path / "run.pt"
    method, history = run(checkpoint=path, on_step=interrupt_at(3))
    assert history.interrupted
    assert history.rows == whole.history.rows[:3]
    assert len(state_in(path)["rows"]) == 3
    assert not method.training
    assert signal.getsignal(signal.SIGINT) is handler
    method, history = run(checkpoint=path)
    assert not history.interrupted
    assert history.rows == whole.history.rows
    assert same(state_in(path), whole.state)


def test_an_interrupt_in_the_middle_of_a_step_lets_the_step_end(handler, whole):
    class Interrupted(Tiny):
        def training_loss(self, batch, rng):
            if len(self.rows) == 3:
                signal.raise_signal(signal.SIGINT)
            return super().training_loss(batch, rng)

    method, history = run(Interrupted())
    assert history.interrupted
    assert history.rows == whole.history.rows[:4]
    assert method.progress[-1] == pytest.approx(4 / 7)


def test_a_second_interrupt_ends_training_at_once_and_loses_only_that_step(handler, whole, tmp_path):
    class Impatient(Tiny):
        def training_loss(self, batch, rng):
            loss = super().training_loss(batch, rng)
            if len(self.rows) == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return loss

    path = tmp_path / "run.pt"
    Impatient.__name__ = "Tiny"
    _, history = run(Impatient(), checkpoint=path, checkpoint_every=3)
    assert history.interrupted
    assert history.rows == whole.history.rows[:4]
    assert len(state_in(path)["rows"]) == 3
    assert signal.getsignal(signal.SIGINT) is handler
    assert run(checkpoint=path)[1].rows == whole.history.rows


def test_an_interrupt_in_the_last_step_comes_too_late_to_interrupt(handler, whole):
    _, history = run(on_step=interrupt_at(7))
    assert not history.interrupted
    assert history.rows == whole.history.rows


def test_the_handler_is_put_back_after_an_error(handler):
    with pytest.raises(RuntimeError, match="stopped"):
        run(on_step=raise_at(2))
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupts_that_are_ignored_stay_ignored(handler, whole):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, history = run(on_step=interrupt_at(3))
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert not history.interrupted
    assert history.rows == whole.history.rows


def test_training_works_outside_the_main_thread_and_leaves_the_handler_alone(handler, whole):
    found = []

    def work():
        found.append(run(on_step=lambda *_: found.append(signal.getsignal(signal.SIGINT)))[1])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[-1].rows == whole.history.rows
    assert set(found[:-1]) == {handler}


CHILD = """
import json, signal, sys, time, torch
from course_utils.methods import Autoencoder
from course_utils.models import DenseAutoencoder
from course_utils.train import fit

signal.signal(signal.SIGINT, signal.default_int_handler)
def on_step(step, method):
    print(step, flush=True)
    time.sleep(0.05)

torch.manual_seed(0)
method = Autoencoder(DenseAutoencoder((4, 3, 2)))
data = torch.rand(64, 4)
h = fit(method, data, steps=1000, batch_size=16, checkpoint=sys.argv[1], on_step=on_step, progress=False)
print(json.dumps({"interrupted": h.interrupted, "steps": len(h), "losses": h.losses}))
"""


def test_ctrl_c_ends_a_real_process_with_its_history_and_its_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.stdout.readline().strip() not in ("3", ""):
            pass
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=200)
    assert child.returncode == 0
    said = json.loads(out.splitlines()[-1])
    assert said["interrupted"]
    assert 3 <= said["steps"] < 1000

    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = Autoencoder(DenseAutoencoder((4, 3, 2)))
        data = torch.rand(64, 4)
    again = Autoencoder(DenseAutoencoder((4, 3, 2)))
    options = {"batch_size": 16, "steps": 1000, "progress": False, "on_step": raise_at(said["steps"] + 4)}
    for method, checkpoint in [(fresh, None), (again, path)]:
        with pytest.raises(RuntimeError, match="stopped"):
            fit(method, data, checkpoint=checkpoint, **options)
    assert state_in(path)["rows"][-1]["loss"] == said["losses"][-1]
    assert same(again.state_dict(), fresh.state_dict())


# --- losses that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_says_why(bad, tmp_path):
    class Diverges(Tiny):
        def training_loss(self, batch, rng):
            loss, logs = super().training_loss(batch, rng)
            return loss * bad if len(self.rows) == 5 else loss, logs

    method, kept = Diverges(), []
    with pytest.raises(FloatingPointError) as caught:
        run(
            method,
            checkpoint=tmp_path / "run.pt",
            checkpoint_every=1,
            on_step=lambda *_: kept.append([parameter.detach().clone() for parameter in method.parameters()]),
        )
    sentence = str(caught.value)
    assert f"the loss became {bad} at step 5 with learning rate {rate(5, 7, 0.05, 0.1):.2g}" in sentence
    assert "'spread': " in sentence
    assert "the likely cause is a learning rate that is too high, or NaN or infinite values in the data" in sentence
    assert same(list(method.parameters()), kept[-1])
    assert len(kept) == len(state_in(tmp_path / "run.pt")["rows"]) == 4


def test_nan_in_the_data_is_found_at_the_first_step_that_meets_it():
    data = X.clone()
    data[5, 1] = math.nan
    order = run()[0].rows
    step = 1 + next(number for number, rows in enumerate(order) if 5 in rows)
    with pytest.raises(FloatingPointError, match=f"became nan at step {step} "):
        run(data=data)


# --- arguments


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"steps": 0}, ValueError, "steps and checkpoint_every must be at least 1, got 0 and 100"),
        ({"checkpoint_every": 0}, ValueError, "steps and checkpoint_every must be at least 1, got 7 and 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be between 1 and the 12 examples of data, got 0"),
        ({"batch_size": 13}, ValueError, "batch_size must be between 1 and the 12 examples of data, got 13"),
        ({"data": X[:0]}, ValueError, "batch_size must be between 1 and the 0 examples of data, got 4"),
        ({"lr": 0.0}, ValueError, "lr must be positive and warmup between 0 and 1, got 0.0 and 0.1"),
        ({"lr": -1}, ValueError, "lr must be positive and warmup between 0 and 1, got -1.0 and 0.1"),
        ({"lr": math.nan}, ValueError, "lr must be positive and warmup between 0 and 1, got nan and 0.1"),
        ({"warmup": 1.5}, ValueError, "lr must be positive and warmup between 0 and 1, got 0.05 and 1.5"),
        ({"warmup": -0.5}, ValueError, "lr must be positive and warmup between 0 and 1, got 0.05 and -0.5"),
        ({"steps": 7.0}, TypeError, "steps must be an integer, got 7.0"),
        ({"batch_size": "4"}, TypeError, "batch_size must be an integer, got '4'"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"checkpoint_every": 0.5}, TypeError, "checkpoint_every must be an integer, got 0.5"),
        ({"device": "gpu"}, ValueError, "device must be 'auto', 'cpu', 'cuda' (or 'cuda:1', …) or 'mps', got 'gpu'"),
        ({"device": "cpu:1"}, ValueError, "(or 'cuda:1', …) or 'mps', got 'cpu:1'"),
        ({"device": "cuda:x"}, ValueError, "(or 'cuda:1', …) or 'mps', got 'cuda:x'"),
        ({"device": "cpu:"}, ValueError, "(or 'cuda:1', …) or 'mps', got 'cpu:'"),
        ({"precision": "fp16"}, ValueError, "precision must be 'auto', 'bf16-mixed' or '32-true', got 'fp16'"),
        ({"data": X.numpy()}, TypeError, "data must be a tensor or a sequence of tensors; load(...).train.x is one"),
        ({"data": []}, TypeError, "data must be a tensor or a sequence of tensors; load(...).train.x is one"),
        ({"data": [X, None]}, TypeError, "data must be a tensor or a sequence of tensors; load(...).train.x is one"),
        ({"data": object()}, TypeError, "data must be a tensor or a sequence of tensors; load(...).train.x is one"),
        ({"data": [X, X[:5]]}, ValueError, "all tensors of data must have one length, got [5, 12]"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        run(**options)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{device}' was asked for and is not there: use device='auto' or"):
        run(device=device)


# --- precision


class Images(Tiny):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = ConvEncoder(1, width=4)
            self.head = nn.Linear(self.encoder.out_dim, 4)

    def training_loss(self, batch, rng):
        self.seen.append((self.training, torch.is_autocast_enabled("cpu")))
        h = self.encoder(batch)
        self.dtype = h.dtype
        return (self.head(h) - batch[:, 0, :4, 0]).square().mean(), {}


def images(precision):
    x = torch.rand(32, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    return run(Images(), data=x, batch_size=16, steps=12, lr=0.01, precision=precision)


def test_forced_bf16_computes_in_bf16_and_channels_last_and_stays_near_float32():
    (exact, expected), (method, history) = images("32-true"), images("bf16-mixed")
    assert {autocast for _, autocast in method.seen} == {True}
    assert {autocast for _, autocast in exact.seen} == {False}
    assert (exact.dtype, method.dtype) == (torch.float32, torch.bfloat16)
    assert method.encoder.feature_map[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    assert history.losses != expected.losses
    assert history.losses[0] == pytest.approx(expected.losses[0], rel=0.01)
    assert history.losses == pytest.approx(expected.losses, abs=0.1 * expected.losses[0])
    assert history.losses[-1] < 0.7 * history.losses[0]


@pytest.mark.parametrize("chosen", ["bf16-mixed", "32-true"])
def test_automatic_precision_is_the_one_chosen_for_the_method_and_the_device(chosen, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "choose_precision", lambda *given: asked.append(given) or chosen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    method, _ = images("auto")
    assert asked == [(method, "cpu")]
    assert method.dtype == (torch.bfloat16 if chosen == "bf16-mixed" else torch.float32)


def test_training_in_bf16_resumes_bit_for_bit(tmp_path):
    path = tmp_path / "run.pt"
    x = torch.rand(32, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    options = {"data": x, "batch_size": 16, "precision": "bf16-mixed"}
    whole, _ = run(Images(), **options)
    with pytest.raises(RuntimeError, match="stopped"):
        run(Images(), **options, checkpoint=path, checkpoint_every=2, on_step=raise_at(5))
    resumed, _ = run(Images(), **options, checkpoint=path)
    assert same(resumed.state_dict(), whole.state_dict())


# --- history and progress


@pytest.fixture
def history():
    return History([{"step": step, "loss": loss, "lr": 0.1} for step, loss in enumerate([4.0, 2.0, 3.0, 1.0], 1)])


def test_a_history_says_how_long_and_how_far(history):
    assert repr(history) == "History of 4 steps, loss 4.000 → 1.000"
    history.interrupted = True
    assert repr(history) == "History of 4 steps, loss 4.000 → 1.000 (interrupted)"
    assert repr(History()) == "History of 0 steps"


def test_a_history_is_a_frame_with_a_row_a_step(history):
    frame = history.to_frame()
    assert frame.to_dict("records") == history.rows
    assert list(frame["loss"]) == history.losses == [4, 2, 3, 1]
    assert len(history) == 4


def test_a_history_is_drawn_as_measured_and_as_its_running_mean(history):
    _, ax = plt.subplots()
    assert history.plot(ax, label="run", smooth=2) is ax
    smooth, measured = ax.lines
    np.testing.assert_allclose(smooth.get_ydata(), [4, 3, 2.5, 2])
    np.testing.assert_allclose(measured.get_ydata(), history.losses)
    assert all(list(line.get_xdata()) == [1, 2, 3, 4] for line in ax.lines)
    assert smooth.get_label() == "run"
    assert measured.get_color() == smooth.get_color()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")
    assert history.plot(column="lr").get_ylabel() == "lr"
    plt.close("all")


def test_the_progress_bar_counts_on_standard_error(monkeypatch, capsys):
    monkeypatch.delenv("COURSE_PROGRESS")
    run(progress=None)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"Tiny: 100%.*7/7 .*loss \d\.\d{3}", err)


def test_the_progress_bar_of_a_resumed_run_goes_on_where_it_was(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("COURSE_PROGRESS")
    with pytest.raises(RuntimeError, match="stopped"):
        run(checkpoint=tmp_path / "run.pt", checkpoint_every=2, on_step=raise_at(4 + 1))
    run(checkpoint=tmp_path / "run.pt", progress=True)
    err = capsys.readouterr().err
    assert "4/7" in err
    assert "7/7" in err


@pytest.mark.parametrize(("progress", "variable"), [(False, None), (None, "0"), (True, "0")])
def test_the_progress_bar_can_be_silenced(progress, variable, monkeypatch, capsys):
    monkeypatch.delenv("COURSE_PROGRESS")
    if variable is not None:
        monkeypatch.setenv("COURSE_PROGRESS", variable)
    run(progress=progress)
    assert capsys.readouterr() == ("", "")
