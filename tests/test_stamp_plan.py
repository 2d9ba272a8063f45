"""Which kernel takes which stamp: folded where a neighbour begins or ends at that moment, else by one of its own."""

import pytest
from tests.stream_doubles import PaintingSimulator, configuration, networks_of

from saccade.execution import place_networks, turns_of
from saccade.mailbox import Mailbox
from saccade.network import InputWork
from saccade.stamp_plan import INFERRED, PREPROCESSED, SENSED, plan_stamps

CAMERA_AND_LIDAR = {"networks": ("camera", "lidar")}
ONLY_SMALL = {"networks": ("swapped",)}


def planned(monkeypatch, options, *, branched=False, sensors=None, copies=False, decoded=True, **given):
    config = configuration(**options)
    networks = networks_of(config, monkeypatch)
    mailbox = Mailbox(sum(network.batch for network in networks), "cpu")
    place_networks(networks, mailbox)
    frames = PaintingSimulator(config).frames
    sensors = sensors or list(config.sensors)
    kinds = [frames[sensor].kind for sensor in sensors]
    lanes = [kind if branched and kind != kinds[0] else None for kind in kinds]
    turns = turns_of(sensors, networks, set(sensors))
    inputs = [[network.input_work(tensor, frames) for network, tensor in turn.inputs] for turn in turns]
    if copies:
        inputs = [[InputWork(work.launches, [(1, 2)], 4) for work in works] for works in inputs]
    decodes = [[launch for n in turn.networks for launch in n.record_decode()] if decoded else [] for turn in turns]
    settings = {"whole": True, "results": decoded, "staged": False, **given}
    plan = plan_stamps(turns, inputs, decodes, sensors, lanes, mailbox, **settings)
    assert sorted({slot for slots in plan.stages for slot in slots} - {-1}) == list(range(plan.taken))
    return plan


def test_with_branches_a_camera_and_a_lidar_need_no_kernel_for_stamps(monkeypatch):
    """Each is sensed, preprocessed, inferred and decoded on a lane of its own: six stamps, none of them a node."""
    plan = planned(monkeypatch, CAMERA_AND_LIDAR, branched=True)
    assert (plan.taken, plan.own, plan.results) == (6, {}, -1)


def test_in_one_line_the_first_of_two_sensors_is_stamped_apart(monkeypatch):
    """What comes next is sensing, a simulator's own work; the last one's next is preprocessing."""
    plan = planned(monkeypatch, CAMERA_AND_LIDAR)
    assert list(plan.own) == [(SENSED, 0)]


def test_cameras_of_one_kind_are_sensed_on_one_lane(monkeypatch):
    """Of four on one lane only the last is followed by preprocessing."""
    options = {"cameras": ("a", "b", "c", "d"), "networks": ("camera",)}
    plan = planned(monkeypatch, options, branched=True, sensors=["a", "b", "c", "d"])
    assert list(plan.own) == [(SENSED, 0), (SENSED, 1), (SENSED, 2)]


def test_a_network_without_a_large_output_is_stamped_by_the_results(monkeypatch):
    """Where these come next; buffers that lie there already have no stamp of sensing."""
    plan = planned(monkeypatch, {"networks": ("swapped",)}, whole=False)
    assert plan.own == {} and plan.stages[1][INFERRED] == plan.results == 2
    assert plan.stages[0][INFERRED] == -1  # its results belong to the LiDAR's frame


def test_results_that_wait_for_another_lane_stamp_nothing(monkeypatch):
    """They would begin when the slower of two has ended."""
    plan = planned(monkeypatch, ONLY_SMALL, branched=True, whole=False)
    assert plan.results == -1 and (INFERRED, 1) in plan.own


def test_preprocessing_that_waits_for_another_lane_does_not_stamp_sensing(monkeypatch):
    """A network of two sensors alone: its inputs are prepared one by one, each on its sensor's lane."""
    plan = planned(monkeypatch, ONLY_SMALL, branched=True)
    assert not [key for key in plan.own if key[0] == PREPROCESSED]
    assert plan.stages[0][SENSED] != plan.stages[1][SENSED]


@pytest.mark.parametrize("branched", [True, False])
def test_a_stage_between_sensing_and_preprocessing(monkeypatch, branched):
    """Sensing has ended before the stage."""
    plan = planned(monkeypatch, CAMERA_AND_LIDAR, branched=branched, staged=True)
    assert list(plan.own) == [(SENSED, 0), (SENSED, 1)]


def test_a_copy_after_the_preprocessing(monkeypatch):
    """Prepared is what has been copied."""
    plan = planned(monkeypatch, CAMERA_AND_LIDAR, branched=True, copies=True)
    assert list(plan.own) == [(PREPROCESSED, 0), (PREPROCESSED, 1)]


def test_without_decoding_nothing_brings_ends_to_the_host(monkeypatch):
    plan = planned(monkeypatch, CAMERA_AND_LIDAR, branched=True, decoded=False)
    assert list(plan.own) == [(stage, i) for i in (0, 1) for stage in (PREPROCESSED, INFERRED)]


def test_a_frame_that_no_network_reads(monkeypatch):
    """It is sensed on a lane where nothing comes next."""
    plan = planned(monkeypatch, {"networks": ("camera",)}, branched=True)
    assert list(plan.own) == [(SENSED, 1)] and plan.stages[1][1:] == [-1, -1]


def test_stamps_of_two_sets_of_one_network_do_not_meet(monkeypatch):
    """Launches are marked for their set: what one marks, another has not."""
    config = configuration(networks=("camera",))
    (network,) = networks_of(config, monkeypatch)
    frames = PaintingSimulator(config).frames
    one, other = (network.input_work("image", frames) for _ in range(2))
    assert one.launches[0] is not other.launches[0]
    assert network.record_decode()[0] is not network.record_decode()[0]
