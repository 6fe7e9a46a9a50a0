"""Sealed models, by the name that bield.toml gives them. They run in the enclave's own engine, outside of WebAssembly.

    scores = model("magika").run({"bytes": tensor("I32", [1, 2048], features)})["scores"].numbers

Arithmetic on large tensors is the model's business: here it would be ten times slower.
"""

from array import array

from componentize_py_types import Err
from wit_world.imports import graph
from wit_world.imports import tensor as _tensor


class ModelError(Exception):
    """What bield says when a model does not open or run."""


class Tensor:
    """`type` ("FP32", "FP64", "U8", "I32", "I64"), `shape`, and `numbers`, an array."""

    def __init__(self, type, shape, numbers):
        self.type = type
        self.shape = shape
        self.numbers = numbers


def tensor(type, shape, numbers):
    """A tensor from numbers."""
    return Tensor(type, list(shape), array(_code(type), numbers))


def model(name):
    """The model of that name."""
    try:
        return Model(name, graph.load_by_name(name).init_execution_context())
    except Err as refused:
        raise _described(name, refused.value) from None


class Model:
    """An open model."""

    def __init__(self, name, context):
        self._name = name
        self._context = context

    def run(self, inputs):
        """Runs it: tensors by the names of the model's inputs in, tensors by the names of its outputs out."""
        named = [
            (key, _tensor.Tensor(made.shape, _tensor.TensorType[made.type], made.numbers.tobytes()))
            for key, made in inputs.items()
        ]
        try:
            outputs = self._context.compute(named)
        except Err as refused:
            raise _described(self._name, refused.value) from None
        return {key: _read(made) for key, made in outputs}


def _read(made):
    type = made.ty().name
    numbers = array(_code(type))
    numbers.frombytes(made.data())
    return Tensor(type, made.dimensions(), numbers)


def _code(type):
    if type not in _CODES:
        raise TypeError(f"tensors of {type} are not for Python")
    return _CODES[type]


def _described(name, error):
    return ModelError(f"model {name}: {error.code().name}: {error.data()}")


_CODES = {"FP32": "f", "FP64": "d", "U8": "B", "I32": "i", "I64": "q"}
