"""Calling a stranger's function: copies in, plain arrays out, and every way it can go wrong becomes a sentence."""

import numpy as np
import pytest
import torch

from course_utils.calling import Call, call

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def error_of(function, given=None, **how):
    outcome = call(function, {"x": X} if given is None else given, Call("f", **how))
    return outcome.error, outcome.message


def test_arguments_arrive_in_order_in_the_librarys_kind_and_numbers_and_words_as_they_are():
    seen = []
    given = {"x": X, "k": 3, "name": "ward"}
    for library in ("torch", "numpy"):
        call(lambda *arguments: seen.append(arguments), given, Call("f", library=library))
    (t, *rest), (a, *others) = seen
    assert isinstance(t, torch.Tensor)
    assert t.dtype == torch.float32
    assert type(a) is np.ndarray
    assert rest == others == [3, "ward"]


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_what_the_function_does_to_its_argument_is_seen_and_leaves_the_original_alone(library):
    before = X.copy()

    def f(x):
        x *= 2
        return x

    outcome = call(f, {"x": X}, Call("f", library=library))
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(outcome.given["x"], 2 * before)


@pytest.mark.parametrize("result", [1, 2.5, True, np.float32(3), np.arange(3), torch.arange(3), torch.tensor(1.0)])
def test_numbers_arrays_and_tensors_come_back_as_arrays(result):
    outcome = call(lambda x: result, {"x": X}, Call("f"))
    assert type(outcome.outputs["result"]) is np.ndarray
    np.testing.assert_array_equal(outcome.outputs["result"], np.asarray(result))


def test_several_results_come_back_by_their_names():
    outcome = call(lambda x: (x.sum(), x.mean(0)), {"x": X}, Call("f", ("total", "means")))
    assert {name: array.tolist() for name, array in outcome.outputs.items()} == {"total": 15, "means": [1.5, 2.5, 3.5]}


def test_the_gradient_of_the_summed_first_result_comes_back_and_is_zero_where_nothing_depends():
    given = {"x": X, "y": X, "factor": 3.0}
    outcome = call(lambda x, y, factor: factor * x**2, given, Call("f", gradients=("x", "y")))
    np.testing.assert_allclose(outcome.outputs["gradient of x"], 6 * X)
    np.testing.assert_array_equal(outcome.outputs["gradient of y"], 0 * X)


def raises(error):
    def f(x):
        raise error

    return f


class UnspeakableError(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("function", "how", "error", "message"),
    [
        (3, {}, "TypeError", "f must be a function, got int"),
        (raises(NotImplementedError()), {}, "stub", "f is not written yet"),
        (lambda x: None, {}, "stub", "f returns nothing: end it with return"),
        (raises(ValueError("one\ntwo")), {}, "ValueError", "one two"),
        (raises(UnspeakableError()), {}, "UnspeakableError", ""),
        (lambda: 1, {}, "TypeError", "takes 0 positional arguments but 1 was given"),
        (lambda x: (x, x), {"returns": ("a", "b", "c")}, "TypeError", "must return 3 things (a, b, c), got 2"),
        (lambda x: x, {"returns": ("a", "b")}, "TypeError", "must return 2 things (a, b), got 1"),
        (lambda x: "three", {}, "TypeError", "result must be an array of numbers or one number, got str"),
        (lambda x: [1, 2], {}, "TypeError", "got list"),
        (lambda x: np.array(["a"], dtype=object), {}, "TypeError", "got numpy.ndarray"),
        (lambda x: 1j, {}, "TypeError", "got complex"),
        (lambda x: x.detach().sum(), {"gradients": ("x",)}, "no gradient", "no gradient flows from result to x"),
        (lambda x: 3.0, {"gradients": ("x",)}, "no gradient", "keep to torch's operations"),
    ],
)
def test_every_way_to_fail_has_its_sentence(function, how, error, message):
    found = error_of(function, **how)
    assert found[0] == error
    assert message in found[1]


def test_an_interrupt_passes_through():
    with pytest.raises(KeyboardInterrupt):
        error_of(raises(KeyboardInterrupt()))


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match="library must be one of torch, numpy, got 'jax'"):
        Call("f", library="jax")
