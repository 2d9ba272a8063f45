"""Tiny networks for tests, made with onnx.helper; no training, no files in the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save


def save_network(path: Path, *, inputs, outputs, nodes, constants=None, opset=17) -> Path:
    """Writes a network; ``inputs`` and ``outputs`` map names to shapes with ints or symbolic strings."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    return path


def camera_network(path: Path, *, size=(16, 16), batch=1, bias=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), hazard=0.25) -> Path:
    """Labels from a 1x1 convolution over RGB, hazard a constant: input ``image``, outputs ``labels``, ``hazard``."""
    weight = np.zeros((6, 3, 1, 1), np.float32)
    weight[0, 0], weight[1, 1], weight[2, 2] = 1.0, 1.0, 1.0
    return save_network(
        path,
        inputs={"image": [batch, 3, *size]},
        outputs={"labels": [batch, 6, *size], "hazard": [batch, 1]},
        nodes=[
            helper.make_node("Conv", ["image", "weight", "bias"], ["labels"]),
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "hazard_value"], ["flat"]),
            helper.make_node("Reshape", ["flat", "one_by_one"], ["hazard"]),
        ],
        constants={
            "weight": weight,
            "bias": np.asarray(bias, np.float32),
            "zero": np.float32(0),
            "hazard_value": np.float32(hazard),
            "one_by_one": np.array([-1, 1], np.int64),
        },
    )


def lidar_network(path: Path, *, channels=4, columns=32, clearance=5.0) -> Path:
    """Labels from the range, clearance a constant plus nothing: input ``range_image``."""
    weight = np.zeros((6, 2, 1, 1), np.float32)
    weight[1, 0] = 1.0
    return save_network(
        path,
        inputs={"range_image": [1, 2, channels, columns]},
        outputs={"labels": [1, 6, channels, columns], "clearance": [1, 16]},
        nodes=[
            helper.make_node("Conv", ["range_image", "weight"], ["labels"]),
            helper.make_node("ReduceMean", ["range_image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "sectors"], ["clearance"]),
        ],
        constants={
            "weight": weight,
            "zero": np.float32(0),
            "sectors": np.full((1, 16), clearance, np.float32),
        },
    )


def residual_network(path: Path, *, named=True, factor=2.0) -> Path:
    """Products, a sum, ReLU, what moves and what computes: input ``image``, outputs ``labels`` and ``hazard``."""
    random = np.random.default_rng(0)

    def kernel(outputs: int, inputs: int) -> np.ndarray:
        return random.normal(0, inputs**-0.5, (outputs, inputs, 1, 1)).astype(np.float32)

    def node(kind: str, inputs: list[str], output: str, **attributes):
        return helper.make_node(kind, inputs, [output], name=output if named else "", **attributes)

    return save_network(
        path,
        inputs={"image": [1, 3, 16, 16]},
        outputs={"labels": [1, 6, 16, 16], "hazard": [1, 32, 16, 16]},
        nodes=[
            node("Conv", ["image", "w1"], "first"),
            node("Relu", ["first"], "first_relu"),  # read by products alone
            node("Conv", ["first_relu", "w2"], "second"),
            node("Relu", ["second"], "second_relu"),  # read by a product and a sum
            node("Conv", ["second_relu", "w3"], "third"),
            node("Add", ["third", "second_relu"], "sum"),
            node("Mul", ["sum", "factor"], "scaled"),  # moved, and then read by a product alone
            node("Concat", ["scaled", "scaled"], "both", axis=1),
            node("Conv", ["both", "w4"], "labels"),
            node("Conv", ["first_relu", "w5"], "score"),  # moved, and then read by what computes
            node("Transpose", ["score"], "turned", perm=[0, 1, 3, 2]),
            node("Sigmoid", ["turned"], "share"),
            node("Relu", ["share"], "hazard"),  # not behind a product
        ],
        constants={
            "w1": kernel(32, 3),
            "w2": kernel(32, 32),
            "w3": kernel(32, 32),
            "w4": kernel(6, 64),
            "w5": kernel(32, 32),
            "factor": np.float32(factor),
        },
    )
