"""Small networks and frames for compression; nothing here needs the simulator."""

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.onnx_models import save_network


def segmenter(path, *, size=16, batch=1, seed=0):
    """Writes a network of residual blocks, a depthwise convolution, a skip by Concat and a pooled score.

    Its label logits follow the colour of a pixel, so that they differ from place to place.
    """
    generator = np.random.default_rng(seed)

    def weight(*shape):
        return (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    head = 0.1 * weight(6, 19, 1, 1)
    head[0, 16], head[1, 17], head[2, 18] = 4.0, 4.0, 4.0
    return save_network(
        path,
        inputs={"image": [batch, 3, size, size]},
        outputs={"labels": [batch, 6, size, size], "score": [batch, 1]},
        nodes=[
            helper.make_node("Conv", ["image", "w0", "b0"], ["a"], "stem", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], "stem_relu"),
            helper.make_node("Conv", ["b", "w1", "b1"], ["c"], "depthwise", pads=[1, 1, 1, 1], group=16),
            helper.make_node("Conv", ["c", "w2", "b2"], ["d"], "wide"),
            helper.make_node("Relu", ["d"], ["e"], "wide_relu"),
            helper.make_node("Conv", ["e", "w3", "b3"], ["f"], "narrow"),
            helper.make_node("Add", ["b", "f"], ["g"], "sum"),
            helper.make_node("Concat", ["g", "image"], ["h"], "skip", axis=1),
            helper.make_node("Conv", ["h", "head"], ["labels"], "head"),
            helper.make_node("GlobalAveragePool", ["g"], ["p"], "pool"),
            helper.make_node("Flatten", ["p"], ["q"], "flat"),
            helper.make_node("Gemm", ["q", "w4", "b4"], ["r"], "fc", transB=1),
            helper.make_node("Sigmoid", ["r"], ["score"], "score"),
        ],
        constants={
            "w0": weight(16, 3, 3, 3),
            "b0": 0.1 * weight(16, 1)[:, 0],
            "w1": weight(16, 1, 3, 3),
            "b1": 0.1 * weight(16, 1)[:, 0],
            "w2": weight(32, 16, 1, 1),
            "b2": 0.1 * weight(32, 1)[:, 0],
            "w3": weight(16, 32, 1, 1),
            "b3": 0.1 * weight(16, 1)[:, 0],
            "head": head,
            "w4": weight(1, 16),
            "b4": np.zeros(1, np.float32),
        },
    )


@pytest.fixture(scope="session")
def network_file(tmp_path_factory):
    return segmenter(tmp_path_factory.mktemp("network") / "net.onnx")


@pytest.fixture
def network(network_file):
    return onnx.load(str(network_file))


@pytest.fixture(scope="session")
def frames():
    """Smooth pictures that differ: 130 of them."""
    generator = np.random.default_rng(3)
    coarse = generator.normal(size=(130, 3, 4, 4)).astype(np.float32)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)
