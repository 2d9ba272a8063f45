"""What a captured CUDA graph moves between host and device, read from its nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOVE_NOTHING = frozenset(("kernel", "memset", "empty", "wait_event", "event_record", "mem_alloc", "mem_free"))
"""Types of nodes that copy nothing between host and device."""


@dataclass(slots=True)
class GraphFacts:
    """Nodes of one graph by type, and the bytes of its copies by direction."""

    nodes: Counter[str] = field(default_factory=Counter)
    host_to_device_bytes: int = 0
    device_to_host_bytes: int = 0
    device_to_device_bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    """Nodes whose traffic could not be told; with any, nothing is proven."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for the record."""
        return {
            "nodes": dict(self.nodes),
            "host_to_device_bytes": self.host_to_device_bytes,
            "device_to_host_bytes": self.device_to_host_bytes,
            "device_to_device_bytes": self.device_to_device_bytes,
            "unknown": list(self.unknown),
        }


def graph_facts(graph: int) -> GraphFacts:
    """Lists the nodes of a captured graph with the CUDA driver (through ``cuda-bindings``).

    Args:
        graph: Handle of the ``CUgraph``, as Warp's captured graphs have it.

    Returns:
        The nodes by type and the bytes that its copies move. A kernel can reach pinned host memory without
        a copy node. Saccade's own kernels read none, and TensorRT's run on device buffers; the one that writes results
        and stamps to the host is counted beside this, under ``kernel_writes`` of the record.

    Raises:
        ImportError: ``cuda-bindings`` is not installed: ``pip install cuda-bindings``.
        RuntimeError: The driver refused.
    """
    from cuda.bindings import driver

    facts = GraphFacts()
    _collect(driver, driver.CUgraph(graph), facts)
    return facts


def _collect(driver: Any, graph: Any, facts: GraphFacts) -> None:
    _, count = _checked(driver, driver.cuGraphGetNodes(graph, 0))
    nodes, _ = _checked(driver, driver.cuGraphGetNodes(graph, count))
    for node in nodes[:count]:
        name = _type_of(driver, node)
        facts.nodes[name] += 1
        if name == "memcpy":
            _add_copy(driver, _checked(driver, driver.cuGraphMemcpyNodeGetParams(node)), facts)
        elif name == "graph":
            _collect(driver, _checked(driver, driver.cuGraphChildGraphNodeGetGraph(node)), facts)
        elif name not in MOVE_NOTHING:
            # The body of a conditional node cannot be listed, and a host function may do anything.
            facts.unknown.append(name)


def _type_of(driver: Any, node: Any) -> str:
    """Returns the type of a node as the record names it, such as ``"kernel"``."""
    try:
        kind = _checked(driver, driver.cuGraphNodeGetType(node))
    except ValueError:  # a type that is newer than the bindings
        return "other"
    return str(kind.name).removeprefix("CU_GRAPH_NODE_TYPE_").lower()


def _add_copy(driver: Any, copy: Any, facts: GraphFacts) -> None:
    size = int(copy.WidthInBytes) * max(int(copy.Height), 1) * max(int(copy.Depth), 1)
    try:
        source = _side(driver, copy.srcMemoryType, copy.srcHost, copy.srcDevice)
        target = _side(driver, copy.dstMemoryType, copy.dstHost, copy.dstDevice)
    except ValueError:  # a kind of memory that is newer than the bindings
        source = target = "unknown"
    if source == "host" and target == "device":
        facts.host_to_device_bytes += size
    elif source == "device" and target == "host":
        facts.device_to_host_bytes += size
    elif source == target == "device":
        facts.device_to_device_bytes += size
    elif "unknown" in (source, target):
        facts.unknown.append(f"memcpy {source} to {target}, {size} bytes")


def _side(driver: Any, kind: Any, host: Any, device: Any) -> str:
    """Returns ``"host"``, ``"device"`` or ``"unknown"``; an address of unified space is looked up."""
    types = driver.CUmemorytype
    if kind == types.CU_MEMORYTYPE_HOST:
        return "host"
    if kind in (types.CU_MEMORYTYPE_DEVICE, types.CU_MEMORYTYPE_ARRAY):
        return "device"
    address = int(device) or int(host or 0)
    if not address:
        return "unknown"
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    status, found = driver.cuPointerGetAttribute(attribute, address)
    if status != driver.CUresult.CUDA_SUCCESS:
        return "host"  # pageable memory is not known to the driver
    sides = {int(types.CU_MEMORYTYPE_HOST): "host", int(types.CU_MEMORYTYPE_DEVICE): "device"}
    return sides.get(int(found), "unknown")


def _checked(driver: Any, answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the CUDA driver could not list the graph: {status.name}")
    return values[0] if len(values) == 1 else values
