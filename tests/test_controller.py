"""The reflex: what it does for what it is told, and that it never walks blind."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.config import ControllerConfig
from saccade.controller import ReflexController
from saccade.frame import SECTOR_COUNT, Result, SimState

FREE = [30.0] * SECTOR_COUNT


def decide(*, clearance=None, hazard=None, route=(), state=None, config=None, seen=0.0, finite=True):
    controller = ReflexController(config or ControllerConfig(), route=route, hazard_thresholds={"n": 0.5})
    if clearance is not None or hazard is not None:
        controller.update(Result("n", "s", hazard=hazard, clearance=clearance, finite=finite), seen)
    return controller.decide(state or SimState(), 3)


def test_cruises_on_free_floor():
    """Nothing around: full speed ahead, and the command names the decision."""
    command = decide(clearance=FREE)
    assert command.linear_x == pytest.approx(0.7)
    assert command.yaw_rate == 0.0
    assert (command.tick, command.source, command.reason) == (3, "reflex", "cruise")


def test_stands_without_results():
    """A blind robot does not walk."""
    assert decide().reason == "blind"
    assert decide().linear_x == 0.0


def test_stands_on_old_and_on_broken_results():
    """Results older than the limit, or non-finite ones, count as none."""
    assert decide(clearance=FREE, state=SimState(sim_time=0.6)).reason == "blind"
    assert decide(clearance=FREE, finite=False).reason == "blind"


def test_a_hazard_turns_to_the_freer_side():
    """A hazard above the threshold creeps and turns away, one below does not."""
    left_is_narrow = [30.0] * 16
    left_is_narrow[3] = 2.0
    command = decide(clearance=left_is_narrow, hazard=0.9)
    assert command.reason == "avoid"
    assert 0 < command.linear_x <= 0.12
    assert command.yaw_rate < 0
    assert decide(clearance=FREE, hazard=0.1).reason == "cruise"


@pytest.mark.parametrize("sector", range(SECTOR_COUNT))
def test_gives_way_to_what_comes_too_close(sector):
    """Straight away from it, whichever side it comes from, and for as long as it is too close."""
    clearance = list(FREE)
    clearance[sector] = 0.45
    command = decide(clearance=clearance)
    angle = sector * 2 * math.pi / SECTOR_COUNT
    assert command.reason == "give way"
    assert command.linear_x == pytest.approx(-0.5 * math.cos(angle), abs=1e-9)
    assert command.linear_y == pytest.approx(-0.5 * math.sin(angle), abs=1e-9)
    assert decide(clearance=clearance, config=ControllerConfig(give_way_clearance=0)).linear_y == 0
    clearance[sector] = 0.55
    assert decide(clearance=clearance).reason != "give way"


def test_does_not_give_way_into_something_else():
    """Between two walls it walks on as it would."""
    clearance = list(FREE)
    clearance[4], clearance[12] = 0.45, 0.7
    command = decide(clearance=clearance)
    assert (command.linear_y, command.reason != "give way") == (0.0, True)


def test_the_free_heading_is_kept_for_a_while_and_then_the_route_again():
    """After a hazard the route does not draw the robot straight back into what it no longer sees."""
    controller = ReflexController(ControllerConfig(), route=[(0.0, 0.0), (0.0, 9.0), (-9.0, 9.0)])
    states = [SimState(sim_time=t, position=(0.0, 2.0, 0.0)) for t in (0.0, 0.2, 4.0)]
    commands = []
    for state, hazard in zip(states, (0.9, 0.1, 0.1), strict=True):
        controller.update(Result("n", "s", hazard=hazard, clearance=FREE), state.sim_time)
        commands.append(controller.decide(state, 0))
    assert [command.reason for command in commands] == ["avoid", "cruise", "cruise"]
    assert commands[1].yaw_rate == 0.0
    assert commands[2].yaw_rate > 0.5


def test_the_side_is_kept_while_the_way_is_blocked():
    """Two openings are not dithered between."""
    controller = ReflexController(ControllerConfig())
    sides = []
    for tick in range(6):
        clearance = [30.0] * 16
        clearance[0] = 0.4
        clearance[2 if tick % 2 else 14] = 3.0
        controller.update(Result("n", "s", clearance=clearance), 0.1 * tick)
        sides.append(controller.decide(SimState(sim_time=0.1 * tick), tick).yaw_rate)
    assert len({rate > 0 for rate in sides}) == 1


def test_stops_and_turns_to_the_open_side():
    """A wall close ahead: stand, and turn to where there is room."""
    clearance = list(FREE)
    clearance[0] = clearance[1] = clearance[15] = 0.5
    clearance[13] = clearance[14] = 0.6
    command = decide(clearance=clearance)
    assert command.linear_x == 0.0
    assert command.yaw_rate > 0
    mirrored = [clearance[-i % SECTOR_COUNT] for i in range(SECTOR_COUNT)]
    assert decide(clearance=mirrored).yaw_rate < 0


def test_slows_with_clearance():
    """The nearer the obstacle ahead, the slower."""
    speeds = []
    for distance in (3.0, 1.6, 1.3):
        clearance = list(FREE)
        clearance[0] = distance
        speeds.append(decide(clearance=clearance).linear_x)
    assert speeds[0] > speeds[1] > speeds[2] > 0


def test_steers_to_the_waypoint():
    """A waypoint to the left turns left; reaching it goes on to the next of the loop."""
    route = [(0.0, 0.0), (0.0, 3.0), (-3.0, 3.0)]
    assert decide(clearance=FREE, route=route).yaw_rate > 0.5
    state = SimState(position=(0.0, 2.5, 0.0), yaw=math.pi / 2)
    controller = ReflexController(ControllerConfig(), route=route)
    controller.update(Result("n", "s", clearance=FREE), 0.0)
    assert controller.decide(state, 0).yaw_rate > 0.5


def test_stand_controller_stands():
    """``kind: stand`` never moves."""
    command = decide(clearance=FREE, config=ControllerConfig(kind="stand"))
    assert (command.linear_x, command.yaw_rate, command.reason) == (0.0, 0.0, "stand")


@given(
    clearance=st.lists(st.floats(0, 30), min_size=16, max_size=16),
    hazard=st.floats(0, 1),
    position=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    yaw=st.floats(-10, 10),
)
def test_commands_stay_in_bounds_and_never_walk_into_what_is_seen(clearance, hazard, position, yaw):
    """Whatever is perceived: finite, bounded, and no step forward with less than the stop clearance ahead."""
    config = ControllerConfig()
    command = decide(
        clearance=clearance,
        hazard=hazard,
        route=[(0.0, 0.0), (5.0, 0.0), (5.0, 5.0)],
        state=SimState(position=(*position, 0.0), yaw=yaw),
        config=config,
    )
    assert abs(command.yaw_rate) <= 1.0
    if command.reason == "give way":
        heading = math.atan2(command.linear_y, command.linear_x)
        assert math.hypot(command.linear_x, command.linear_y) == pytest.approx(0.5)
        assert min(clearance) < config.give_way_clearance
        assert ReflexController._ahead(clearance, heading) >= 2 * config.give_way_clearance
        return
    assert 0.0 <= command.linear_x <= config.cruise_speed + 1e-9
    assert command.linear_y == 0.0
    if clearance[0] < config.stop_clearance:
        assert command.linear_x == 0.0
