"""Small ONNX files, written field by field as onnx.proto numbers them."""

from __future__ import annotations

from pathlib import Path

_FLOAT, _INT, _INTS = 1, 2, 7  # element type; types of attributes


def write_statistics(path: Path, num_inputs: int = 1) -> Path:
    """A network from `1 samples` to mean and maximum, `1 2`."""
    over_samples = _attribute("axes", _INTS, _field(8, 1)) + _attribute(
        "keepdims", _INT, _field(3, 1)
    )
    nodes = (
        _node("ReduceMean", ["waveform"], "mean", over_samples)
        + _node("ReduceMax", ["waveform"], "max", over_samples)
        + _node("Concat", ["mean", "max"], "vector", _attribute("axis", _INT, _field(3, 1)))
    )
    inputs = [_value(11, name, "samples") for name in ("waveform", "other")[:num_inputs]]
    graph = nodes + _field(2, b"statistics") + b"".join(inputs) + _value(12, "vector", 2)
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 12)))
    return path


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _attribute(name: str, kind: int, value: bytes) -> bytes:
    return _field(5, _field(1, name.encode()) + value + _field(20, kind))


def _node(op: str, inputs: list[str], output: str, attributes: bytes) -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs)
    return _field(1, names + _field(2, output.encode()) + _field(4, op.encode()) + attributes)


def _value(number: int, name: str, last: int | str) -> bytes:
    """A named tensor `1 last`."""
    size = _field(2, last.encode()) if isinstance(last, str) else _field(1, last)
    shape = _field(1, _field(1, 1)) + _field(1, size)
    tensor = _field(1, _FLOAT) + _field(2, shape)
    return _field(number, _field(1, name.encode()) + _field(2, _field(1, tensor)))
