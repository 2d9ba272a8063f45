"""Several precisions behind one engine: bound once, switched by a reference."""

from __future__ import annotations

import pytest
import warp as wp
from tests.stream_doubles import KernelEngine

from saccade.config import EngineConfig
from saccade.engines import adaptive
from saccade.engines.adaptive import AdaptiveEngine, Variant, adaptive_from_onnx
from saccade.errors import EngineError, ModelError

SHAPES = {"image": (1, 3, 4, 4)}, {"labels": (1, 6, 4, 4)}


def engines(*names):
    return {name: KernelEngine(*SHAPES) for name in names}


def test_every_engine_reads_and_writes_the_same_arrays():
    own = engines("fp32", "fp16")
    engine = AdaptiveEngine(own)
    source, target = wp.zeros((1, 3, 4, 4), device="cpu"), wp.zeros((1, 6, 4, 4), device="cpu")
    engine.bind("image", source)
    engine.bind("labels", target)
    assert all(one.bound == {"image": source, "labels": target} for one in own.values())


def test_only_the_selected_engine_runs_and_a_switch_binds_nothing():
    own = engines("fp32", "fp16")
    engine = AdaptiveEngine(own)
    engine.bind("image", wp.zeros((1, 3, 4, 4), device="cpu"))
    engine.bind("labels", wp.zeros((1, 6, 4, 4), device="cpu"))
    for one in own.values():
        one.bind = None  # nothing may be bound from here on
    engine.enqueue(None)
    engine.select("fp16")
    assert engine.level == 1
    engine.enqueue(None)
    engine.enqueue(None)
    assert [one.enqueued for one in own.values()] == [1, 2]


def test_other_tensors_or_devices_are_refused():
    other = KernelEngine({"image": (1, 3, 8, 8)}, SHAPES[1])
    with pytest.raises(ModelError, match="inputs of precision fp16"):
        AdaptiveEngine({"fp32": KernelEngine(*SHAPES), "fp16": other})
    elsewhere = KernelEngine(*SHAPES)
    elsewhere.device = "cuda:0"
    with pytest.raises(ModelError, match="is on cuda:0"):
        AdaptiveEngine({"fp32": KernelEngine(*SHAPES), "fp16": elsewhere})


def test_what_does_not_open_beside_the_others_is_left_out(monkeypatch, tmp_path):
    opened = []

    def open_one(path, config, **_):
        if config.precision == "int8":
            raise EngineError("out of memory")
        opened.append(config.precision)
        return KernelEngine(*SHAPES)

    monkeypatch.setattr(adaptive, "engine_from_onnx", open_one)
    variants = {p: Variant(tmp_path / "x.onnx", EngineConfig(precision=p)) for p in ("fp32", "int8", "fp16")}
    refused = {}
    engine = adaptive_from_onnx(tmp_path / "x.onnx", EngineConfig(), variants=variants, refused=refused)
    assert engine.precisions == ("fp32", "fp16") and refused == {"int8": "out of memory"}
    assert opened == ["fp32", "fp16"]


def test_without_the_first_there_is_nothing(monkeypatch, tmp_path):
    def open_one(path, config, **_):
        raise EngineError("out of memory")

    monkeypatch.setattr(adaptive, "engine_from_onnx", open_one)
    variants = {"fp32": Variant(tmp_path / "x.onnx", EngineConfig(precision="fp32"))}
    with pytest.raises(EngineError, match="out of memory"):
        adaptive_from_onnx(tmp_path / "x.onnx", EngineConfig(), variants=variants, refused={})
