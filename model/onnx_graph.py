"""Writing ONNX graphs as if they were array code; the only module that imports onnx.

>>> graph = Graph("double", half_weights=False)
>>> x = graph.input("x", np.float32, (1, None))
>>> graph.output("y", x * 2.0)
>>> Path("double.onnx").write_bytes(graph.to_bytes())

Graphs are written and not traced from torch: what they compute is rearranged on purpose (see
`model.folded_decoder`), and the same weights give the same bytes with every version of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 20
# Read by onnxruntime since 1.17, native and in browsers.
_IR_VERSION = 9
_PRODUCER = "maskwheel"
# Smaller constants (norms, biases, numbers) stay float32: they weigh nothing.
_HALF_FROM_ELEMENTS = 1024
_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.bool_): TensorProto.BOOL,
}

Attribute = int | float | str | Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the graph; arithmetic writes nodes."""

    graph: Graph
    name: str

    def __add__(self, other: Value | float) -> Value:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.graph.op("Div", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.graph.op("MatMul", self, other)

    def reshape(self, *sizes: int | Value) -> Value:
        """Give another shape; a size is a number, -1 for what is left, or a value (1,)."""
        return self.graph.op("Reshape", self, self.graph.shape_of(*sizes))

    def transpose(self, *order: int) -> Value:
        """Order the dimensions anew."""
        return self.graph.op("Transpose", self, perm=order)

    def size(self, axis: int) -> Value:
        """Return one dimension's size, int64 (1,)."""
        return self.graph.op("Shape", self, start=axis, end=axis + 1)

    def slice(self, axis: int, start: int | Value, stop: int | Value) -> Value:
        """Keep a range of one axis."""
        start, stop = (self.graph.shape_of(bound) for bound in (start, stop))
        return self.graph.op("Slice", self, start, stop, self.graph.integers(axis))

    def cast(self, dtype: type[np.generic]) -> Value:
        """Convert to another type."""
        return self.graph.op("Cast", self, to=int(_TYPES[np.dtype(dtype)]))


@dataclass(slots=True, eq=False)
class Graph:
    """A graph that is being written.

    Attributes:
        name: shown by tools.
        half_weights: keep large weights as float16 in the file; computing is float32 all the same.
    """

    name: str
    half_weights: bool
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = field(
        default_factory=dict
    )
    _widened: dict[str, Value] = field(default_factory=dict)
    _casts: list[onnx.NodeProto] = field(default_factory=list)
    _count: int = 0

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | None]) -> Value:
        """Declare an input; None is a size that is known when the graph runs."""
        sizes = [f"{name}_{i}" if size is None else size for i, size in enumerate(shape)]
        kind = _TYPES[np.dtype(dtype)]
        self._inputs.append(helper.make_tensor_value_info(name, kind, sizes))
        return Value(self, name)

    def output(self, name: str, value: Value, shape: Sequence[int | None]) -> None:
        """Declare a float32 output."""
        sizes = [f"{name}_{i}" if size is None else size for i, size in enumerate(shape)]
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))

    def op(self, kind: str, *inputs: Value | float, **attributes: Attribute) -> Value:
        """Write a node with one output."""
        names = [self._as_value(value).name for value in inputs]
        result = self._new_name(kind)
        node = helper.make_node(kind, names, [result])
        node.attribute.extend(helper.make_attribute(*item) for item in sorted(attributes.items()))
        self._nodes.append(node)
        return Value(self, result)

    def weight(self, tensor: Tensor) -> Value:
        """Use a model's weight as a constant."""
        array = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        if not self.half_weights or array.size < _HALF_FROM_ELEMENTS:
            return self.constant(array)
        half = self.constant(array.astype(np.float16))
        if half.name not in self._widened:
            wide = Value(self, f"{half.name}_wide")
            self._casts.append(
                helper.make_node("Cast", [half.name], [wide.name], to=TensorProto.FLOAT)
            )
            self._widened[half.name] = wide
        return self._widened[half.name]

    def constant(self, array: NDArray[np.generic] | float) -> Value:
        """Use numbers; plain floats become float32, equal constants are kept once."""
        values = np.asarray(array, dtype=np.float32) if isinstance(array, float) else array
        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(values, f"c{len(self._constants)}")
        return Value(self, self._constants[key].name)

    def integers(self, *values: int) -> Value:
        """Use int64 numbers, as shapes, axes and ranges are."""
        return self.constant(np.array(values, dtype=np.int64))

    def shape_of(self, *sizes: int | Value) -> Value:
        """Join sizes to a shape."""
        if all(isinstance(size, int) for size in sizes):
            return self.integers(*(size for size in sizes if isinstance(size, int)))
        parts = [self.integers(size) if isinstance(size, int) else size for size in sizes]
        return parts[0] if len(parts) == 1 else self.concat(parts, axis=0)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        return self.op("Concat", *values, axis=axis)

    def either(
        self,
        condition: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """Compute one of two things when the graph runs; the other costs nothing."""
        branches = [self._branch(name, body) for name, body in (("t", then), ("o", otherwise))]
        results = [self._new_name("If") for _ in branches[0].output]
        self._nodes.append(
            helper.make_node(
                "If", [condition.name], results, then_branch=branches[0], else_branch=branches[1]
            )
        )
        return [Value(self, name) for name in results]

    def to_bytes(self) -> bytes:
        """Return the finished file.

        Raises:
            onnx.checker.ValidationError: a graph that is not well formed.
        """
        graph = helper.make_graph(
            [*self._casts, *self._nodes],
            self.name,
            self._inputs,
            self._outputs,
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name=_PRODUCER,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized

    def _branch(self, name: str, body: Callable[[], Sequence[Value]]) -> onnx.GraphProto:
        outside, self._nodes = self._nodes, []
        try:
            results = [self.op("Identity", value) for value in body()]
            outputs = [
                helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None)
                for value in results
            ]
            return helper.make_graph(self._nodes, f"{name}{self._count}", [], outputs)
        finally:
            self._nodes = outside

    def _as_value(self, value: Value | float) -> Value:
        return value if isinstance(value, Value) else self.constant(float(value))

    def _new_name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}{self._count}"
