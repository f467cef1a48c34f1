"""Variations of DWPose's stub networks, whose answers stay as they are: another batch axis, another cost.

The real networks compute about 156 GFLOP a picture (YOLOX-l at 640 × 640, published) and 18.7 GFLOP a person (RTMPose-l
at 288 × 384, published as 9.33 G multiplications with additions). `with_cost` gives the stubs the same work to do, or a
share of it, in 3 × 3 convolutions at an eighth of the size.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

STUBS = Path(__file__).parents[1] / "tests" / "golden_data" / "dwpose"
DETECTOR, KEYPOINTS = STUBS / "detector_stub.onnx", STUBS / "pose_stub.onnx"
REAL_CHANNELS = 256
REAL_LAYERS = {DETECTOR: 20, KEYPOINTS: 9}  # of so many channels: 151 and 18.3 GFLOP


def stub(path: Path, batch: int | None = 1, share: float = 0.0, shift: float = 0.0) -> onnx.ModelProto:
    """A stub with changes.

    Args:
        path: `DETECTOR` or `KEYPOINTS`.
        batch: How many pictures it takes at once; None for any number.
        share: Of the real network's cost, to be added; 0 adds nothing.
        shift: Added to the detector's logit of objectness: below 0, fewer people.
    """
    model = onnx.load(path)
    if shift:
        _shift_objectness(model, shift)
    if share:
        _add_cost(model, max(1, round(REAL_CHANNELS * math.sqrt(share))), REAL_LAYERS[path])
    if batch != 1:
        _set_batch(model, batch)
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a network; returns its path."""
    onnx.save(model, path)
    return path


def _set_batch(model: onnx.ModelProto, batch: int | None) -> None:
    for value in (*model.graph.input, *model.graph.output):
        side = value.type.tensor_type.shape.dim[0]
        if batch is None:
            side.dim_param = "n"
        else:
            side.dim_value = batch
    reshaped = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for constant in model.graph.initializer:
        if constant.name in reshaped:
            shape = numpy_helper.to_array(constant).copy()
            shape[0] = batch or -1
            constant.CopyFrom(numpy_helper.from_array(shape, constant.name))


def _shift_objectness(model: onnx.ModelProto, shift: float) -> None:
    for constant in model.graph.initializer:
        if constant.name.startswith("b") and list(constant.dims) == [85]:
            bias = numpy_helper.to_array(constant).copy()
            bias[4] += shift
            constant.CopyFrom(numpy_helper.from_array(bias, constant.name))


def _add_cost(model: onnx.ModelProto, channels: int, layers: int) -> None:
    """Add a tower of convolutions, and 0 times its mean to the first output."""
    graph, random = model.graph, np.random.default_rng(0)

    def constant(name: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def add(operation: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.node.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    output = graph.output[0].name
    producer = next(node for node in graph.node if output in node.output)
    producer.output[list(producer.output).index(output)] = plain = f"{output}_plain"
    stem = constant("cost_stem", random.standard_normal((channels, 3, 8, 8)) / 14 / 128)
    now = add("Conv", [graph.input[0].name, stem], "cost_0", strides=[8, 8])
    for layer in range(layers):
        weight = random.standard_normal((channels, channels, 3, 3)) * math.sqrt(2 / 9 / channels)
        now = add("Conv", [now, constant(f"cost_w{layer}", weight)], f"cost_c{layer}", pads=[1, 1, 1, 1])
        now = add("Relu", [now], f"cost_{layer + 1}")
    now = add("ReduceMean", [now], "cost_mean", axes=[1, 2], keepdims=1)  # n 1 1 w
    now = add("ReduceMean", [now], "cost_number", axes=[2, 3], keepdims=0)  # n 1
    now = add("Unsqueeze", [now], "cost_last", axes=[2])  # n 1 1
    nothing = add("Mul", [now, constant("cost_factor", np.zeros(1))], "cost_nothing")
    add("Add", [plain, nothing], output)
