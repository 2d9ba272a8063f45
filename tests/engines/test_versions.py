"""Which TensorRT has what: the table against the interfaces of three releases."""

import ctypes.util

import pytest
from tests.contracts.tensorrt.doubles import RELEASES, TensorRTDouble

from saccade.engines.build_worker import missing_libraries
from saccade.engines.versions import Traits, int8_route, numpy_name, traits_of, version_tuple
from saccade.errors import DependencyError


@pytest.mark.parametrize("release", RELEASES)
def test_the_table_is_what_the_release_has(release):
    """Every trait that is a name in the interface is there exactly where the table says so."""
    traits, module = traits_of(release), TensorRTDouble(release).module
    assert traits.strongly_typed_flag <= ("STRONGLY_TYPED" in module.NetworkDefinitionCreationFlag.__members__)
    assert traits.explicit_batch <= ("EXPLICIT_BATCH" in module.NetworkDefinitionCreationFlag.__members__)
    assert traits.precision_flags == ("FP16" in module.BuilderFlag.__members__)
    assert traits.precision_flags == ("int8_calibrator" in module.IBuilderConfig._api)
    assert traits.optimization_level == ("builder_optimization_level" in module.IBuilderConfig._api)
    assert traits.progress_monitor == ("progress_monitor" in module.IBuilderConfig._api)
    assert traits.host_code_switch == ("engine_host_code_allowed" in module.Runtime._api)
    assert traits.node_named_in_error == ("node_operator" in module.ParserError._api)
    assert traits.device_memory in module.ICudaEngine._api
    assert set(traits.external_sources) == {"CUBLAS", "CUBLAS_LT", "CUDNN"} & set(module.TacticSource.__members__)


def test_int8_without_a_calibrator_is_explicit():
    """Where the calibrator is gone or deprecated, scales stand in the graph."""
    assert [int8_route(release) for release in RELEASES] == ["calibrator", "explicit", "explicit"]


@pytest.mark.parametrize(
    ("text", "numbers"), [("8.5.3.1", (8, 5, 3, 1)), ("10.16.1.11.post12.dev1", (10, 16, 1, 11)), ("11.4", (11, 4))]
)
def test_version_numbers(text, numbers):
    """Only the leading numbers count."""
    assert version_tuple(text) == numbers


@pytest.mark.parametrize("text", ["8.4.3.1", "7.2", "unknown"])
def test_too_old_or_unreadable(text):
    """A TensorRT without addresses by name is refused with what is needed."""
    with pytest.raises(DependencyError, match=r"8\.5 or newer|numbers"):
        traits_of(text)


@pytest.mark.parametrize("release", RELEASES)
def test_types_have_numpy_names(release):
    """The types of tensors that sensors and networks have; those that NumPy lacks have none."""
    kinds = TensorRTDouble(release).module.DataType
    assert [numpy_name(getattr(kinds, name)) for name in ("FLOAT", "HALF", "INT8", "BOOL")] == [
        "float32",
        "float16",
        "int8",
        "bool",
    ]
    if hasattr(kinds, "BF16"):
        assert numpy_name(kinds.BF16) is None


def test_a_library_counts_only_with_its_functions():
    """A file that loads but lacks the function is missing, one that has it is there, one that is absent is not."""
    libc = ctypes.util.find_library("c")

    def traits(*libraries) -> Traits:
        from dataclasses import replace

        return replace(traits_of("8.5.3.1"), external_libraries=libraries)

    assert missing_libraries(traits(("CUDNN", "cudnnCreate", (libc,)))) == ["CUDNN"]
    assert missing_libraries(traits(("CUDNN", "cudnnCreate", ("libnothing.so.99",)))) == ["CUDNN"]
    assert missing_libraries(traits(("CUDNN", "malloc", ("libnothing.so.99", libc)))) == []
