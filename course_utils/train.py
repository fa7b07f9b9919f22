"""The training loop. There is one, and it knows no method: it asks for a loss, takes a step, and keeps a history."""

import functools
import logging
import math
import operator
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.distributed import use_global_batch_norm
from course_utils.methods.base import Method
from course_utils.precision import choose_precision

CHECKPOINT_VERSION = 1
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision at every fit


@dataclass
class History:
    """What was seen at every step: a list of rows with step, loss, lr and whatever the method logs.

    >>> history = History([{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "loss": 1.0, "lr": 0.1}])
    >>> len(history), history.losses, list(history.to_frame().columns)
    (2, [2.0, 1.0], ['step', 'loss', 'lr'])
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        end = f", loss {self.rows[0]['loss']:.3f} → {self.rows[-1]['loss']:.3f}" if self.rows else ""
        return f"History of {len(self)} steps{end}{' (interrupted)' if self.interrupted else ''}"

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [row["loss"] for row in self.rows]

    def to_frame(self):
        """A pandas DataFrame with a row a step."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def plot(self, ax=None, *, column: str = "loss", label: str | None = None, smooth: int = 10):
        """Draw a column against the step: faint as measured, bold as its running mean. Returns the matplotlib axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        frame = self.to_frame()
        (line,) = ax.plot(frame["step"], frame[column].rolling(smooth, min_periods=1).mean(), label=label, marker="")
        ax.plot(frame["step"], frame[column], color=line.get_color(), alpha=0.25, linewidth=1, marker="")
        ax.set(xlabel="step", ylabel=column)
        return ax


ADAMW = functools.partial(torch.optim.AdamW, fused=True)  # all weights at once: a tenth of a small network's step


def fit(
    method: Method,
    data: Tensor | Sequence[Tensor],
    *,
    steps: int,
    batch_size: int = 256,
    seed: int = 0,
    lr: float = 2e-3,
    weight_decay: float = 1e-4,
    warmup: float = 0.1,
    optimizer: Callable[..., torch.optim.Optimizer] = ADAMW,
    device: str = "auto",
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    progress: bool | None = None,
    on_step: Callable[[int, Method], None] | None = None,
) -> History:
    """Train `method` on `data` for a number of steps, and return what was seen.

    data: a tensor (N, ...), or several of equal length, which reach the method as a tuple. Every epoch is a fresh
    random order; a last batch that would be short is dropped. The learning rate rises linearly over the first
    `warmup` part of the steps and falls to 0 along a half cosine (Loshchilov and Hutter 2017, equation 5).

    device: "auto", "cpu", "cuda" (of several: "cuda:1") or "mps". precision: "bf16-mixed", "32-true" or "auto": bf16
    for wide convolutional networks where the device has it in hardware, else float32. progress: a bar, unless it is
    False or the environment has COURSE_PROGRESS=0. on_step(step, method) is called after each step.

    checkpoint: a file to keep the state of training in, written whole or not at all. If it is there already, training
    goes on from it to the result that it would have had uninterrupted. An interrupt (Ctrl-C, or Jupyter's stop
    button) ends training after the step in progress and returns the history so far, with `interrupted` set.

    Started in several processes (`torchrun --nproc_per_node 2 script.py`), each takes its part of every batch, and the
    gradients, batch statistics and contrasted negatives are those of the joined batch; the history holds the means
    over the processes. `batch_size` is the joined batch's; it must divide by the number of processes.

    Raises ValueError for bad arguments and FloatingPointError when the loss is not finite.

    >>> from course_utils.methods import Autoencoder
    >>> from course_utils.models import DenseAutoencoder
    >>> method = Autoencoder(DenseAutoencoder((4, 2)))
    >>> history = fit(method, torch.rand(64, 4), steps=20, batch_size=16, seed=0, progress=False)
    >>> len(history)
    20
    """
    tensors = _as_tensors(data)
    n = len(tensors[0])
    whole = {"steps": steps, "batch_size": batch_size, "seed": seed, "checkpoint_every": checkpoint_every}
    steps, batch_size, seed, checkpoint_every = (_integer(name, value) for name, value in whole.items())
    lr, weight_decay, warmup = float(lr), float(weight_decay), float(warmup)
    fabric = _fabric(device, precision, method)
    processes = fabric.world_size
    _check(n, steps, batch_size, processes, lr, warmup, checkpoint_every)

    if processes > 1:
        use_global_batch_norm(method)
    if fabric.device.type == "cpu" or fabric._precision.precision == "bf16-mixed":
        method.to(memory_format=torch.channels_last)  # small convolutions take half to nine tenths of the time
    method.to(fabric.device)
    wrapped, optim = fabric.setup(method, optimizer(method.parameter_groups(lr), lr=lr, weight_decay=weight_decay))
    wrapped.mark_forward_method("training_loss")
    tensors = [tensor.to(fabric.device) for tensor in tensors]
    schedule = torch.optim.lr_scheduler.LambdaLR(optim, _warmup_then_cosine(steps, warmup))

    history = History()
    settings = {"method": type(method).__name__, "optimizer": type(optim.optimizer).__name__, "examples": n}
    settings |= {"steps": steps, "batch_size": batch_size, "seed": seed, "processes": processes}
    settings |= {"lr": lr, "weight_decay": weight_decay, "warmup": warmup}
    keeper = _Keeper(checkpoint, settings, fabric, method, optim, schedule)
    keeper.restore(history)
    method.train()
    start = time.perf_counter() - history.seconds
    show = progress is not False and fabric.global_rank == 0 and os.environ.get("COURSE_PROGRESS") != "0"
    bar = tqdm(total=steps, initial=len(history), disable=not show, desc=type(method).__name__, file=sys.stderr)
    defaults = _default_generators(fabric.device)
    with bar, _stop_at_step_end() as stopping, _keep_state(defaults):
        try:
            for step in range(len(history), steps):
                batch = _batch(tensors, step, batch_size, seed, fabric)
                rng = _seeded(fabric.device, seed, step, fabric.global_rank)
                for number, default in enumerate(defaults, start=1):  # dropout draws from these
                    default.manual_seed(_mix(seed, step, fabric.global_rank, number))
                with fabric.autocast():  # `wrapped` enters it by itself only where there are several processes
                    loss, logs = wrapped.training_loss(batch, rng)
                value, logs = _over_processes(fabric, loss, logs)
                rate = schedule.get_last_lr()[0]
                _refuse_bad_loss(value, step + 1, rate, logs)
                optim.zero_grad()
                fabric.backward(loss)
                optim.step()
                schedule.step()
                with torch.no_grad():
                    method.after_step((step + 1) / steps)
                history.rows.append({"step": step + 1, "loss": value, "lr": rate, **logs})
                history.seconds = time.perf_counter() - start
                bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
                bar.update()
                if on_step is not None:
                    on_step(step + 1, method)
                stop = _any_process(fabric, stopping.is_set())
                if stop or step + 1 == steps or (step + 1) % checkpoint_every == 0:
                    keeper.save(history)
                if stop:
                    history.interrupted = step + 1 < steps
                    break
        except KeyboardInterrupt:  # raised inside a step: that step is lost, the checkpoint before it stands
            history.interrupted = True
    method.eval()
    return history


def _fabric(device: str, precision: str, method: Method) -> Fabric:
    """A launched Fabric: one process, or as many as torchrun started."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' (or 'cuda:1', …) or 'mps', got {device!r}")
    if precision not in ("auto", "bf16-mixed", "32-true"):
        raise ValueError(f"precision must be 'auto', 'bf16-mixed' or '32-true', got {precision!r}")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(kind, True)
    if not there or (index and int(index) >= torch.cuda.device_count()):
        raise ValueError(f"device {device!r} was asked for and is not there: use device='auto' or 'cpu'")
    if precision == "auto":
        precision = choose_precision(method, kind)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    strategy = "ddp" if processes > 1 else "auto"
    devices = [int(index)] if index else local
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on GPUs that are there and were not asked for
        fabric = Fabric(
            accelerator=kind, devices=devices, num_nodes=processes // local, strategy=strategy, precision=precision
        )
        fabric.launch()
    return fabric


def _as_tensors(data: Tensor | Sequence[Tensor]) -> list[Tensor]:
    tensors = [data] if isinstance(data, Tensor) else list(data) if isinstance(data, Sequence) else []
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("data must be a tensor or a sequence of tensors; load(...).train.x is one")
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) > 1:
        raise ValueError(f"all tensors of data must have one length, got {sorted(lengths)}")
    return tensors


def _integer(name: str, value) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _check(n: int, steps: int, batch_size: int, processes: int, lr: float, warmup: float, every: int) -> None:
    if steps < 1 or every < 1:
        raise ValueError(f"steps and checkpoint_every must be at least 1, got {steps} and {every}")
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} examples of data, got {batch_size}")
    if batch_size % processes:
        raise ValueError(f"batch_size must divide by the {processes} processes, got {batch_size}")
    if not lr > 0 or not 0 <= warmup <= 1:
        raise ValueError(f"lr must be positive and warmup between 0 and 1, got {lr} and {warmup}")


def _mix(*numbers: int) -> int:
    """One seed that follows from the numbers alone: splitmix64, so that neighbouring seeds and steps share nothing."""
    mixed = 0
    for number in numbers:
        mixed = (mixed ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed & 0x7FFFFFFFFFFFFFFF


def _seeded(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator whose state follows from the numbers alone, so that any step can be drawn again."""
    return torch.Generator(device).manual_seed(_mix(*numbers))


def _batch(tensors: list[Tensor], step: int, batch_size: int, seed: int, fabric: Fabric):
    """This process's part of the batch of a step, from the order of its epoch."""
    per_epoch = len(tensors[0]) // batch_size
    epoch, position = divmod(step, per_epoch)
    order = _order(len(tensors[0]), seed, epoch)
    rows = order[position * batch_size : (position + 1) * batch_size].chunk(fabric.world_size)[fabric.global_rank]
    batch = tuple(tensor[rows.to(fabric.device)] for tensor in tensors)
    return batch[0] if len(batch) == 1 else batch


@functools.lru_cache(maxsize=1)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, drawn once: with a million examples it takes longer than a step."""
    return torch.randperm(n, generator=_seeded(torch.device("cpu"), seed, epoch))


def _warmup_then_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    rising = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1)
        return 0.5 * (1 + math.cos(math.pi * done))

    return factor


def _over_processes(fabric: Fabric, loss: Tensor, logs: dict[str, float]) -> tuple[float, dict[str, float]]:
    """The loss and what else was logged as plain numbers, each the mean over the processes."""
    numbers = [loss.item(), *(float(value) for value in logs.values())]
    if fabric.world_size > 1:
        joined = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
        numbers = fabric.all_reduce(joined, reduce_op="mean").tolist()
    return numbers[0], dict(zip(logs, numbers[1:], strict=True))


def _any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process: a signal does not reach all of them in the same step."""
    if fabric.world_size == 1:
        return flag
    return fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum").item() > 0


def _refuse_bad_loss(value: float, step: int, rate: float, logs: dict[str, float]) -> None:
    if math.isfinite(value):
        return
    causes = "a learning rate that is too high, or NaN or infinite values in the data"
    raise FloatingPointError(
        f"the loss became {value} at step {step} with learning rate {rate:.2g} ({logs or 'nothing else logged'}): "
        f"the likely cause is {causes}; try a tenth of the learning rate and check torch.isfinite(x).all()"
    )


@contextmanager
def _stop_at_step_end():
    """An interrupt sets the event that is yielded, so that training stops between steps; a second one raises.

    Outside the main thread, and where interrupts are ignored (as under nohup) or not Python's, it does nothing.
    """
    stopping = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield stopping
        return

    def on_interrupt(number, frame):
        signal.signal(signal.SIGINT, before)
        stopping.set()

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, before)


def _default_generators(device: torch.device) -> list[torch.Generator]:
    """torch's own generators that operations without an explicit one, such as dropout, draw from on the device."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    if device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    return generators


@contextmanager
def _keep_state(generators: list[torch.Generator]):
    """Leave the generators as they were found: training draws from its own seeds."""
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


class _Keeper:
    """Writes the state of training to a file, whole or not at all, and reads it back: process 0 does, for all."""

    def __init__(self, path, settings, fabric, method, optimizer, schedule):
        self.path = None if path is None else Path(path)
        self.settings, self.fabric = settings, fabric
        self.parts = {"method": method, "optimizer": optimizer, "schedule": schedule}

    def save(self, history: History) -> None:
        if self.path is None:
            return
        if self.fabric.global_rank == 0:
            self._write(history)
        self.fabric.barrier()  # so that the file is there for every process

    def restore(self, history: History) -> None:
        if self.path is None:
            return
        state = self.fabric.broadcast(self._read() if self.fabric.global_rank == 0 else None)
        if isinstance(state, ValueError):
            raise state
        if state is None:
            return
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        history.rows, history.seconds = state["rows"], state["seconds"]

    def _write(self, history: History) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"version": CHECKPOINT_VERSION, "settings": self.settings}
        state |= {"rows": history.rows, "seconds": history.seconds}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            torch.save(state, partial)
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def _read(self) -> dict | ValueError | None:
        """The state in the file, nothing if there is no file, or the error that every process is to raise."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found = {"version": state["version"], **state["settings"]} if isinstance(state, dict) else None
        except Exception:
            found = None
        if found is None:
            return ValueError(f"{self.path} is not a checkpoint of this course: delete it to start afresh")
        advice = "give another checkpoint file, or delete this one to start afresh"
        wanted = {"version": CHECKPOINT_VERSION, **self.settings}
        if found != wanted:
            differ = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
            theirs, ours = (", ".join(f"{name} {run.get(name)}" for name in differ) for run in (found, wanted))
            return ValueError(f"{self.path} belongs to a run with {theirs}; this one has {ours}: {advice}")
        if _shapes(state["method"]) != _shapes(self.parts["method"].state_dict()):
            return ValueError(f"{self.path} belongs to a network of other layers or sizes: {advice}")
        return state


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size | None]:
    return {name: getattr(value, "shape", None) for name, value in state.items()}
