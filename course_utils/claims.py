"""`claim`: a number that the prose relies on, checked as the notebook runs."""

import html
import math
import operator

BOUNDS = {
    "at_least": ("≥", operator.ge),
    "at_most": ("≤", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
}
CLAIM_MIME = "application/vnd.course.claim+json"


class ClaimError(AssertionError):
    """A claim does not hold."""


def claim(
    text: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    data: str | None = None,
    about: str = "glyphs",
) -> None:
    """State that `value` keeps the bounds, show it, and raise ClaimError if it does not.

    In a notebook the plain text of the output is the same on every machine (the statement, its bounds and a tick);
    the measured value stands beside it in the HTML. data: the set that the value was measured on. A claim is about
    one set; measured on another, the value is reported and nothing is asserted.

    Raises ValueError without a bound, TypeError for a value that is not one number, ClaimError when it does not hold.

    >>> claim("half is between nothing and all", 0.5, above=0, below=1)
    half is between nothing and all: > 0 and < 1 ✓ (0.5)
    """
    given = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    given = {name: float(bound) for name, bound in given.items() if bound is not None}
    if not given:
        raise ValueError(f"the claim {text!r} needs a bound: at_least, at_most, above or below")
    number = _as_number(text, value)
    wanted = " and ".join(f"{BOUNDS[name][0]} {bound:.10g}" for name, bound in given.items())
    holds = all(BOUNDS[name][1](number, bound) for name, bound in given.items())
    asserted = data is None or data == about
    if asserted and not holds:
        raise ClaimError(f"{text}: wanted {wanted}, measured {number:.10g}")
    verdict = f"{wanted} ✓" if asserted else f"reported, not asserted: the bound {wanted} is about {about}"
    line, measured = f"{text}: {verdict}", f"{number:.4g}"
    record = {"text": text, "value": number if math.isfinite(number) else None, "wanted": wanted}
    _show(line, measured, record | {"holds": holds, "asserted": asserted})


def _as_number(text: str, value) -> float:
    try:
        number = value.item() if hasattr(value, "item") else value  # arrays and tensors that hold one number
        if not isinstance(number, bool) and hasattr(number, "__float__"):
            return float(number)
    except (ValueError, RuntimeError, OverflowError):
        pass
    shape = tuple(getattr(value, "shape", ()))
    came = type(value).__name__ + (f" of shape {shape}" if shape else "")
    raise TypeError(f"the claim {text!r} needs one number, got {came}")


def _show(line: str, measured: str, record: dict) -> None:
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None or not hasattr(get_ipython(), "kernel"):
        print(f"{line} ({measured})")
        return
    shown = f"<div>{html.escape(line)} &nbsp; <b>measured {measured}</b></div>"
    display({"text/plain": line, "text/html": shown, CLAIM_MIME: record}, raw=True)
