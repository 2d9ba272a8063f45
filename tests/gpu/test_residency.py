"""The driver's own account of captured graphs: nodes by type, and bytes by direction."""

import pytest
import warp as wp

from saccade.residency import graph_facts

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
COUNT = 1000


@wp.kernel
def double(values: wp.array(dtype=wp.float32)):
    i = wp.tid()
    values[i] = 2.0 * values[i]


@pytest.fixture(scope="module", autouse=True)
def driver():
    return pytest.importorskip("cuda.bindings.driver", exc_type=ImportError)


@pytest.fixture(scope="module")
def arrays():
    return {
        "one": wp.zeros(COUNT, dtype=wp.float32, device=DEVICE),
        "other": wp.zeros(COUNT, dtype=wp.float32, device=DEVICE),
        "pinned": wp.zeros(COUNT, dtype=wp.float32, device="cpu", pinned=True),
    }


def captured(work):
    stream = wp.get_stream(DEVICE)
    work()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        work()
    return capture.graph


def facts_of(work):
    graph = captured(work)
    return graph_facts(graph.graph.value).as_dict()


NOTHING = {"host_to_device_bytes": 0, "device_to_host_bytes": 0, "device_to_device_bytes": 0}


@pytest.mark.parametrize(
    ("target", "source", "direction"),
    [
        ("one", "pinned", "host_to_device_bytes"),
        ("pinned", "one", "device_to_host_bytes"),
        ("other", "one", "device_to_device_bytes"),
    ],
)
def test_a_copy_counts_in_its_direction(arrays, target, source, direction):
    """Pinned memory is the host's, also where the driver gives its address in unified space."""
    facts = facts_of(lambda: wp.copy(arrays[target], arrays[source]))
    assert facts == {"nodes": {"memcpy": 1}, **NOTHING, direction: 4 * COUNT, "unknown": []}


def test_kernels_and_memsets_move_nothing(arrays):
    """Counted by type."""

    def work():
        arrays["one"].zero_()
        for _ in range(3):
            wp.launch(double, COUNT, inputs=[arrays["one"]], device=DEVICE)

    assert facts_of(work) == {"nodes": {"memset": 1, "kernel": 3}, **NOTHING, "unknown": []}


def test_a_mixed_graph_counts_all(arrays):
    """Sums of several copies each way, after the graph has been launched too."""

    def work():
        for _ in range(2):
            wp.copy(arrays["one"], arrays["pinned"])
            wp.launch(double, COUNT, inputs=[arrays["one"]], device=DEVICE)
        wp.copy(arrays["pinned"], arrays["one"], count=10)

    graph = captured(work)
    for _ in range(2):
        facts = graph_facts(graph.graph.value).as_dict()
        assert facts["nodes"] == {"memcpy": 3, "kernel": 2}
        assert (facts["host_to_device_bytes"], facts["device_to_host_bytes"]) == (2 * 4 * COUNT, 40)
        wp.capture_launch(graph)
    wp.synchronize_device(DEVICE)
