"""Call a function that somebody else wrote: arrays go in, arrays come out, and what happens inside is only reported.

Nothing here knows what the right answer is, so it may stand in the same process as the function.
"""

from dataclasses import dataclass, field
from numbers import Number

import numpy as np
import torch

LIBRARIES = ("torch", "numpy")


@dataclass(frozen=True)
class Call:
    """How a function is called. function: its name. returns: names of what it returns, one or several.

    library: "torch" or "numpy", the kind of its arrays. gradients: names of arguments (floating) for which the gradient
    of the sum of the first result is asked, too.
    """

    function: str
    returns: tuple[str, ...] = ("result",)
    library: str = "torch"
    gradients: tuple[str, ...] = ()

    def __post_init__(self):
        if self.library not in LIBRARIES:
            raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {self.library!r}")


@dataclass(frozen=True)
class Outcome:
    """What a call came to: `outputs` by name, `given` as the arguments stood afterwards, or what went wrong.

    error: the exception's kind, "stub" where the function is not written yet, "" where all went well; message: a
    sentence about it.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    given: dict[str, np.ndarray] = field(default_factory=dict)
    error: str = ""
    message: str = ""


def call(function, given: dict, how: Call) -> Outcome:
    """Call `function` with copies of the arguments `given` (arrays, numbers, strings), by position.

    Returns an Outcome, also when the function raises; only KeyboardInterrupt and SystemExit pass through.

    >>> import numpy as np
    >>> outcome = call(lambda x, factor: factor * x, {"x": np.ones(2), "factor": 3.0}, Call("times", gradients=("x",)))
    >>> outcome.outputs
    {'result': array([3., 3.]), 'gradient of x': array([3., 3.])}
    >>> call(lambda x: x.no, {"x": np.ones(2)}, Call("f")).error
    'AttributeError'
    """
    if not callable(function):
        return Outcome(error="TypeError", message=f"{how.function} must be a function, got {_kind(function)}")
    arguments = {name: _argument(value, how, name in how.gradients) for name, value in given.items()}
    try:
        returned = function(*arguments.values())
    except NotImplementedError:
        return Outcome(error="stub", message=f"{how.function} is not written yet")
    except Exception as error:
        return Outcome(error=type(error).__name__, message=_one_line(error))
    if returned is None:
        return Outcome(error="stub", message=f"{how.function} returns nothing: end it with return")
    results = tuple(returned) if len(how.returns) > 1 and isinstance(returned, tuple | list) else (returned,)
    if len(results) != len(how.returns):
        wanted = ", ".join(how.returns)
        message = f"{how.function} must return {len(how.returns)} things ({wanted}), got {len(results)}"
        return Outcome(error="TypeError", message=message)
    outputs = {}
    for name, result in zip(how.returns, results, strict=True):
        array = _as_array(result)
        if array is None:
            message = f"{name} must be an array of numbers or one number, got {_kind(result)}"
            return Outcome(error="TypeError", message=message)
        outputs[name] = array
    if how.gradients:
        try:
            sources = [arguments[name] for name in how.gradients]
            gradients = torch.autograd.grad(results[0].sum(), sources, allow_unused=True)
        except Exception:  # a result without a graph, a number, or a graph that was cut or changed in place
            message = (
                f"no gradient flows from {how.returns[0]} to {', '.join(how.gradients)}: keep to torch's operations"
            )
            return Outcome(outputs, error="no gradient", message=message)
        for name, source, gradient in zip(how.gradients, sources, gradients, strict=True):
            outputs[f"gradient of {name}"] = _as_array(torch.zeros_like(source) if gradient is None else gradient)
    after = {
        name: _as_array(value) for name, value in arguments.items() if isinstance(value, torch.Tensor | np.ndarray)
    }
    return Outcome(outputs, after)


def _argument(value, how: Call, with_gradient: bool):
    """A copy of an array in the function's library; numbers and strings as they are."""
    if not isinstance(value, np.ndarray):
        return value
    if how.library == "numpy":
        return value.copy()
    return torch.from_numpy(value.copy()).requires_grad_(with_gradient)


def _as_array(value) -> np.ndarray | None:
    """A copy as an array of numbers; None for what is none."""
    try:
        if isinstance(value, torch.Tensor):
            return value.detach().cpu().numpy().copy()
        if isinstance(value, np.ndarray | np.generic | Number):
            array = np.array(value)
            return array if array.dtype.kind in "biuf" else None
    except Exception:  # a tensor type that numpy lacks, or an object that pretends to be one
        return None
    return None


def _kind(value) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _one_line(error: Exception) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception whose text raises
        text = ""
    return text[:300]
