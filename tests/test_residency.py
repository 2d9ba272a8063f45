"""What a captured graph moves, read from a double of the CUDA driver's bindings: every type of node and address."""

import sys
import types
from enum import IntEnum
from types import SimpleNamespace

import pytest

from saccade.residency import MOVE_NOTHING, graph_facts

HOST, DEVICE, ARRAY, UNIFIED = 1, 2, 3, 4

NODE_TYPES = (
    "KERNEL MEMCPY MEMSET HOST GRAPH EMPTY WAIT_EVENT EVENT_RECORD EXT_SEMAS_SIGNAL EXT_SEMAS_WAIT MEM_ALLOC MEM_FREE "
    "BATCH_MEM_OP CONDITIONAL"
).split()
"""As cuda.h lists them."""

CUgraphNodeType = IntEnum(
    "CUgraphNodeType", {f"CU_GRAPH_NODE_TYPE_{name}": i for i, name in enumerate(NODE_TYPES)}
)
CUmemorytype = IntEnum(
    "CUmemorytype",
    {f"CU_MEMORYTYPE_{name}": i for i, name in enumerate(("HOST", "DEVICE", "ARRAY", "UNIFIED"), start=1)},
)
CUresult = IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_INVALID_VALUE": 1})
OK = CUresult.CUDA_SUCCESS


class Pointer:
    """A CUdeviceptr: its value by ``int`` only."""

    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value


class Copy:
    """A CUDA_MEMCPY3D; as in the bindings, reading an unknown kind of memory raises ValueError."""

    def __init__(self, source, target, *, width=100, height=1, depth=1):
        (self._source, source_address), (self._target, target_address) = source, target
        self.WidthInBytes, self.Height, self.Depth = width, height, depth
        self.srcHost = source_address if self._source == HOST else 0
        self.srcDevice = Pointer(0 if self._source == HOST else source_address)
        self.dstHost = target_address if self._target == HOST else 0
        self.dstDevice = Pointer(0 if self._target == HOST else target_address)

    @property
    def srcMemoryType(self):
        return CUmemorytype(self._source)

    @property
    def dstMemoryType(self):
        return CUmemorytype(self._target)


class Driver:
    """The part of cuda.bindings.driver that lists graphs; nodes are (type, content).

    Args:
        graphs: Nodes by handle.
        pinned: Addresses that the driver knows as host memory.
        device: Addresses that it knows as device memory; others it does not know.
        fails: Name of a function that refuses.
    """

    CUgraphNodeType, CUmemorytype, CUresult = CUgraphNodeType, CUmemorytype, CUresult
    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_MEMORY_TYPE=2)

    def __init__(self, graphs, *, pinned=(), device=(), fails=None):
        self.graphs = graphs
        self.memory = {**dict.fromkeys(pinned, HOST), **dict.fromkeys(device, DEVICE)}
        self.fails = fails

    def CUgraph(self, handle):
        return self.graphs[handle]

    def _status(self, name):
        return CUresult.CUDA_ERROR_INVALID_VALUE if name == self.fails else OK

    def cuGraphGetNodes(self, graph, numNodes=0):
        # More entries than nodes are left empty.
        nodes = [*graph[:numNodes], *([None] * (numNodes - len(graph)))]
        return self._status("cuGraphGetNodes"), nodes, len(graph)

    def cuGraphNodeGetType(self, node):
        if node[0] == "FROM THE FUTURE":
            raise ValueError("99 is not a valid CUgraphNodeType")
        return self._status("cuGraphNodeGetType"), CUgraphNodeType[f"CU_GRAPH_NODE_TYPE_{node[0]}"]

    def cuGraphMemcpyNodeGetParams(self, node):
        return self._status("cuGraphMemcpyNodeGetParams"), node[1]

    def cuGraphChildGraphNodeGetGraph(self, node):
        return self._status("cuGraphChildGraphNodeGetGraph"), node[1]

    def cuPointerGetAttribute(self, attribute, address):
        assert attribute == 2 and isinstance(address, int)
        if address not in self.memory:
            return CUresult.CUDA_ERROR_INVALID_VALUE, 0
        return OK, self.memory[address]


@pytest.fixture
def listed(monkeypatch):
    """Lists the nodes of a graph through the double."""

    def listed(nodes, **options):
        bindings = types.ModuleType("cuda.bindings")
        bindings.driver = Driver({7: nodes}, **options)
        monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        return graph_facts(7)

    return listed


def memcpy(source, target, **size):
    return ("MEMCPY", Copy(source, target, **size))


def test_no_nodes(listed):
    assert listed([]).as_dict() == {
        "nodes": {},
        "host_to_device_bytes": 0,
        "device_to_host_bytes": 0,
        "device_to_device_bytes": 0,
        "unknown": [],
    }


@pytest.mark.parametrize(
    ("source", "target", "direction"),
    [
        (HOST, DEVICE, "host_to_device_bytes"),
        (HOST, ARRAY, "host_to_device_bytes"),
        (DEVICE, HOST, "device_to_host_bytes"),
        (ARRAY, HOST, "device_to_host_bytes"),
        (DEVICE, DEVICE, "device_to_device_bytes"),
        (DEVICE, ARRAY, "device_to_device_bytes"),
        (HOST, HOST, None),
    ],
)
def test_copies_by_direction(listed, source, target, direction):
    """Bytes are width times height times depth, and go to one count only."""
    facts = listed([memcpy((source, 8), (target, 16), width=10, height=3, depth=2)]).as_dict()
    counts = {name: value for name, value in facts.items() if name.endswith("bytes")}
    assert {name for name, value in counts.items() if value} == ({direction} if direction else set())
    assert sum(counts.values()) == (60 if direction else 0)
    assert facts["nodes"] == {"memcpy": 1} and facts["unknown"] == []


@pytest.mark.parametrize(
    ("source", "target", "direction"),
    [
        (11, 21, "host_to_device_bytes"),
        (31, 21, "host_to_device_bytes"),
        (21, 11, "device_to_host_bytes"),
        (21, 31, "device_to_host_bytes"),
        (21, 22, "device_to_device_bytes"),
    ],
)
def test_unified_addresses_are_looked_up(listed, source, target, direction):
    """Pinned memory is known to the driver as the host's, pageable memory not at all: that is the host's too."""
    facts = listed([memcpy((UNIFIED, source), (UNIFIED, target))], pinned=[11, 12], device=[21, 22])
    assert getattr(facts, direction) == 100
    assert facts.unknown == []


def test_heights_of_zero_count_as_one(listed):
    """As one-dimensional copies may have them."""
    assert listed([memcpy((HOST, 1), (DEVICE, 2), height=0, depth=0)]).host_to_device_bytes == 100


@pytest.mark.parametrize("copy", [((UNIFIED, 0), (DEVICE, 2)), ((99, 5), (DEVICE, 2)), ((DEVICE, 2), (UNIFIED, 41))])
def test_a_copy_that_cannot_be_told_is_unknown(listed, monkeypatch, copy):
    """No address, a kind of memory that the bindings do not know, or an answer that is neither: nothing is proven."""
    original = Driver.cuPointerGetAttribute
    monkeypatch.setattr(
        Driver,
        "cuPointerGetAttribute",
        lambda self, attribute, address: (OK, 4) if address == 41 else original(self, attribute, address),
    )
    facts = listed([memcpy(*copy)])
    assert len(facts.unknown) == 1 and "100 bytes" in facts.unknown[0]
    assert facts.host_to_device_bytes == facts.device_to_host_bytes == facts.device_to_device_bytes == 0


def test_every_other_type_of_node(listed):
    """What moves nothing is counted only; what might move something is named as unknown."""
    facts = listed([(name, None) for name in NODE_TYPES if name not in ("MEMCPY", "GRAPH")])
    assert set(facts.nodes) == {name.lower() for name in NODE_TYPES} - {"memcpy", "graph"}
    assert set(facts.unknown) == {"host", "conditional", "batch_mem_op", "ext_semas_signal", "ext_semas_wait"}
    assert set(facts.nodes) - set(facts.unknown) == MOVE_NOTHING


def test_a_type_that_the_bindings_do_not_know(listed):
    """A newer driver's nodes are unknown, not an error."""
    facts = listed([("KERNEL", None), ("FROM THE FUTURE", None)])
    assert facts.nodes == {"kernel": 1, "other": 1} and facts.unknown == ["other"]


def test_child_graphs_are_looked_into(listed):
    """Two levels down, a copy counts as at the top; the child itself is a node."""
    inner = [memcpy((HOST, 1), (DEVICE, 2)), ("KERNEL", None)]
    middle = [("GRAPH", inner), memcpy((DEVICE, 2), (HOST, 1), width=7)]
    facts = listed([("GRAPH", middle), ("KERNEL", None), memcpy((HOST, 1), (DEVICE, 2), width=3)])
    assert facts.host_to_device_bytes == 103 and facts.device_to_host_bytes == 7
    assert facts.nodes == {"graph": 2, "kernel": 2, "memcpy": 3}


@pytest.mark.parametrize(
    "function",
    ["cuGraphGetNodes", "cuGraphNodeGetType", "cuGraphMemcpyNodeGetParams", "cuGraphChildGraphNodeGetGraph"],
)
def test_a_driver_that_refuses(listed, function):
    """An error with the driver's word for it, not a count that is too low."""
    nodes = [memcpy((HOST, 1), (DEVICE, 2)), ("GRAPH", [])]
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        listed(nodes, fails=function)


def test_without_the_bindings(monkeypatch):
    """The import error is the caller's to word."""
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(ImportError):
        graph_facts(7)
