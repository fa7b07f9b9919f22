"""Messages come back as they were sent, and a reader believes nothing that a message says about itself."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from course_utils.grading import wire

ARRAYS = st.sampled_from(sorted(wire.DTYPES)).flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, min_side=0)))
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text() | ARRAYS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner),
    max_leaves=8,
)


def message(tree, body=b"", length=None, header=None):
    head = json.dumps(tree).encode() if header is None else header
    return wire.HEAD.pack(wire.MAGIC, len(head), len(body) if length is None else length) + head + body


def same(one, other):
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(TREES)
def test_what_is_packed_comes_back_with_its_values_types_and_shapes(tree):
    assert same(tree, wire.unpack(wire.pack(tree)))


def test_numpy_numbers_views_and_big_endian_arrays_come_back_with_their_values():
    tree = {"n": np.float32(0.5), "t": np.arange(12).reshape(3, 4).T[::2], "b": np.arange(3, dtype=">i4"), "p": (1, 2)}
    back = wire.unpack(wire.pack(tree))
    assert type(back["n"]) is np.float32
    assert back["n"] == 0.5
    assert np.array_equal(back["t"], tree["t"])
    assert back["b"].tolist() == [0, 1, 2]
    assert back["p"] == [1, 2]
    back["t"][:] = 0  # its own memory


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (np.array([object()]), "got object"),
        (np.array(["a"]), "got str"),
        (np.ones(2, complex), "got complex128"),
        (np.ones((1,) * 9), "9 dimensions"),
        ({1: 2}, "keys must be strings"),
        ({"$array": ["int8", [0]]}, r"begin with \$"),
        ({"f": len}, "got builtin_function"),
        ({"b": b"x"}, "got bytes"),
    ],
)
def test_what_may_not_be_sent_is_refused_by_name(tree, words):
    with pytest.raises(wire.WireError, match=words):
        wire.pack(tree)


def test_a_message_over_the_limit_is_neither_packed_nor_read():
    big = np.zeros(1000)
    with pytest.raises(wire.WireError, match="at most 999"):
        wire.pack(big, limit=999)
    with pytest.raises(wire.WireError, match="at most 999"):
        wire.unpack(wire.pack(big), limit=999)
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(wire.WireError, match="nested"):
        wire.pack(nested)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"CGW1",
        b"XXXX" + message(1)[4:],
        message(1)[:-1],
        message(1) + b"x",
        message(1, length=2**62),
        message(1, b"left over"),
        message({"$array": ["float64", [3]]}, b"\0" * 23),
        message({"$array": ["float64", [2**60, 2**60]]}),
        message({"$array": ["float64", [0, 2**28, 2**28, 2**28]]}),
        message([{"$array": ["int8", [1]]}, {"$array": ["float64", [2**28, 2**28, 2**28, 0]]}], b"x"),
        message({"$array": ["float64", [-1]]}),
        message({"$array": ["float64", [True]]}, b"\0" * 8),
        message({"$array": ["float64", [1.0]]}, b"\0" * 8),
        message({"$array": ["object", [1]]}, b"\0" * 8),
        message({"$array": ["float64", [1] * 9]}, b"\0" * 8),
        message({"$array": ["float64"]}),
        message({"$array": [["float64"], []]}),
        message({"$array": "float64"}),
        message(None, header=b"{"),
        message(None, header=b"\xff"),
        message(None, header=b"[" * 100_000),
        message(None, header=b"9" * 100_000),
    ],
    ids=lambda message: repr(message[:50]),
)
def test_a_forged_message_is_refused(message):
    with pytest.raises(wire.WireError):
        wire.unpack(message)


def test_a_forged_bool_becomes_true_or_false():
    back = wire.unpack(message({"$array": ["bool", [3]]}, b"\0\1\7"))
    assert back.dtype == bool
    assert back.view(np.uint8).tolist() == [0, 1, 1]
