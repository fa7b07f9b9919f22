"""Messages between the grader and the process that runs a submission: a JSON header, then the arrays' raw bytes.

Nothing is ever unpickled. A reader believes no length: each is checked against a limit before memory is asked for, and
the bytes that came are counted against what the header says.
"""

import json
import math
import struct

import numpy as np

MAGIC = b"CGW1"
HEAD = struct.Struct("<4sIQ")  # magic, bytes of the header, bytes of the arrays
HEADER_LIMIT = 2**24
LIMIT = 2**28  # bytes of a message
MAX_DIMENSIONS = 8
NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ["bool", *NUMBERS]}


class WireError(ValueError):
    """A message that is not what it says, holds what may not be sent, or is larger than allowed."""


def pack(tree, limit: int = LIMIT) -> bytes:
    """A message of nested dicts (with string keys), lists, numbers, strings, None and arrays (bool, integer, float).

    Raises WireError for anything else, and for a message of more than `limit` bytes.

    >>> import numpy as np
    >>> unpack(pack({"x": np.arange(3), "name": "k"}))
    {'x': array([0, 1, 2]), 'name': 'k'}
    """
    arrays = []
    size = 0

    def plain(value):
        nonlocal size
        if isinstance(value, np.ndarray | np.generic):
            kind = value.dtype.name
            if kind not in DTYPES:
                raise WireError(f"an array must be of {', '.join(DTYPES)}, got {kind}")
            size += value.nbytes
            if value.ndim > MAX_DIMENSIONS or size > limit:
                raise WireError(
                    f"arrays of {size:,} bytes in {value.ndim} dimensions: at most {limit:,} bytes are sent"
                )
            arrays.append(np.ascontiguousarray(value, DTYPES[kind]).tobytes())
            return {"$array": [kind, list(value.shape)]} | ({"$scalar": True} if isinstance(value, np.generic) else {})
        if isinstance(value, dict):
            if not all(isinstance(key, str) and not key.startswith("$") for key in value):
                raise WireError("keys must be strings that do not begin with $")
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise WireError(f"only numbers, strings, lists, dicts and arrays are sent, got {type(value).__name__}")

    try:
        header = json.dumps(plain(tree)).encode()
    except RecursionError:
        raise WireError("nested too deeply to be sent") from None
    body = b"".join(arrays)
    if len(header) > HEADER_LIMIT or len(header) + len(body) > limit:
        raise WireError(f"a message of {len(header) + len(body):,} bytes: at most {limit:,} are sent")
    return HEAD.pack(MAGIC, len(header), len(body)) + header + body


def size_of(head: bytes, limit: int = LIMIT) -> int:
    """The bytes that follow the first HEAD.size bytes of a message. Raises WireError if they are none or too many."""
    if len(head) != HEAD.size:
        raise WireError("the message breaks off")
    magic, header, body = HEAD.unpack(head)
    if magic != MAGIC:
        raise WireError("that is no message")
    if header > HEADER_LIMIT or header + body > limit:
        raise WireError(f"a message of {header + body:,} bytes: at most {limit:,} are read")
    return header + body


def unpack(message: bytes, limit: int = LIMIT):
    """What `pack` was given, with lists for tuples and writable arrays. Raises WireError if anything is off."""
    head, rest = message[: HEAD.size], memoryview(message)[HEAD.size :]
    if size_of(head, limit) != len(rest):
        raise WireError(
            f"the message breaks off or goes on: {len(rest):,} bytes came, {size_of(head, limit):,} were named"
        )
    length = HEAD.unpack(head)[1]
    try:
        tree = json.loads(bytes(rest[:length]).decode())
    except (ValueError, RecursionError):
        raise WireError("the header is no JSON") from None
    body, position = rest[length:], 0

    def restore(value):
        nonlocal position
        if isinstance(value, list):
            return [restore(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$array" not in value:
            return {key: restore(item) for key, item in value.items()}
        kind, shape = _described(value)
        count = math.prod(shape)
        size = count * DTYPES[kind].itemsize
        if size > len(body) - position:
            raise WireError("an array is larger than the bytes that came")
        array = np.frombuffer(body, DTYPES[kind] if kind != "bool" else np.uint8, count, position)
        array = array.reshape(shape).astype(kind)  # a byte of a bool may be anything: it becomes True or False
        position += size
        return array[()] if value.get("$scalar") is True and not shape else array

    try:
        restored = restore(tree)
    except RecursionError:
        raise WireError("nested too deeply") from None
    except ValueError:  # no elements, of more dimensions times each other than numpy counts to
        raise WireError("an array has no such shape") from None
    if position != len(body):
        raise WireError(f"{len(body) - position:,} bytes belong to no array")
    return restored


def _described(value: dict) -> tuple[str, tuple[int, ...]]:
    """dtype and shape of an array's description, once they are what they should be."""
    match value["$array"]:
        case [str(kind), list(shape)] if kind in DTYPES and len(shape) <= MAX_DIMENSIONS:
            if all(type(length) is int and 0 <= length <= LIMIT for length in shape):
                return kind, tuple(shape)
    raise WireError("an array is described by its dtype and shape")
