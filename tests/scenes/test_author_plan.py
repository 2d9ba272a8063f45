"""Plans: walls close the rooms, footprints measure distance, random plans keep people off static things."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saccade.scenes.author_layout import random_plan
from saccade.scenes.author_plan import Footprint, distance_to_line, stadium, track_along, walls_around


def test_walls_close_an_l_shaped_room():
    rooms = [(0.0, 0.0, 6.0, 2.0), (4.0, 0.0, 6.0, 5.0)]
    walls = walls_around(rooms)
    for angle in range(0, 360, 3):
        x, y = 5.0, 1.0
        for _ in range(2000):
            x, y = x + 0.01 * math.cos(math.radians(angle)), y + 0.01 * math.sin(math.radians(angle))
            if any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in walls):
                break
        else:
            pytest.fail(f"a ray at {angle} degrees leaves the room")
    for x0, y0, x1, y1 in walls:
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        assert not any(r[0] < x < r[2] and r[1] < y < r[3] for r in rooms), "a wall stands in a room"


@given(
    x=st.floats(-5, 5), y=st.floats(-5, 5), yaw=st.floats(-4, 4), half=st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)),
    angle=st.floats(-4, 4), reach=st.floats(0, 3),
)  # fmt: skip
def test_distance_from_a_footprint_is_that_of_its_nearest_edge_point(x, y, yaw, half, angle, reach):
    box = Footprint(x, y, half[0], half[1], yaw)
    assert box.distance(x, y) == 0.0
    px, py = x + (4 + reach) * math.cos(angle), y + (4 + reach) * math.sin(angle)
    corners = box.corners()
    assert box.distance(px, py) == pytest.approx(distance_to_line(px, py, corners), abs=1e-6)


@given(half=st.floats(0.6, 5.0), radius=st.floats(0.4, 1.0), speed=st.floats(0.5, 1.3))
def test_a_track_closes_and_keeps_its_speed(half, radius, speed):
    track = track_along(stadium(1.0, 2.0, half, radius, 0.5), speed)
    assert math.dist(track.positions[0], track.positions[-1]) < 0.02
    steps = [math.dist(a, b) for a, b in zip(track.positions[:-1], track.positions[1:], strict=True)]
    assert max(steps) < 1.3 * (sum(steps) / len(steps)) + 0.01
    turned = (track.yaws[-1] - track.yaws[0]) / (2 * math.pi)
    assert turned == pytest.approx(round(turned), abs=0.02) and round(turned) >= 1


@settings(max_examples=30, deadline=None)
@example(seed=586)  # a corner reached between the points that were looked at
@given(seed=st.integers(0, 100_000))
def test_random_plans_leave_people_and_the_robot_room(seed):
    plan = random_plan(seed)
    assert plan.clearance(plan.start[0], plan.start[1]) > 0.5
    x, y, yaw = plan.start
    for k in range(1, 13):
        assert plan.clearance(x + 0.25 * k * math.cos(yaw), y + 0.25 * k * math.sin(yaw)) > 0.35
    for track in plan.people:
        assert min(plan.clearance(*p) for p in track.positions) > 0.25
    things = [thing.footprint for thing in plan.things]
    for i, a in enumerate(things):
        for b in things[:i]:
            assert a.distance(b.x, b.y) > 0.0, "two things stand in one another"
