from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
from tests.reporting.test_plots import frame, of_class, parse, texts

from saccade.reporting import maps


def walk(count: int = 50) -> list[dict]:
    return [frame(tick, pose=[1 + 0.05 * tick, 2.0, 0.0], contacts=[]) for tick in range(count)]


def dots(root: ET.Element, name: str) -> list[tuple[float, float]]:
    found = []
    for element in of_class(root, "path", "points"):
        if name in element.get("style", "") or name in element.get("class", "").split():
            for point in element.get("d").strip("M").split("M"):
                x, y = point.removesuffix("h0").split()
                found.append((float(x), float(y)))
    return found


def test_lidar_from_above_puts_forward_up_and_left_left() -> None:
    points = np.array([[4, 0, 0], [0, 3, 0], [0, 0, 0]], np.float32)
    root = parse(maps.lidar_from_above({"points": points, "predicted": np.array([1, 3, 0], np.uint8)})[0])
    ((x, y),) = dots(root, "class-structure")
    assert y < maps.BIRDS_EYE / 2 - 50
    assert abs(x - maps.BIRDS_EYE / 2) < 2
    ((x, y),) = dots(root, "class-person")
    assert x < maps.BIRDS_EYE / 2 - 50
    assert abs(y - maps.BIRDS_EYE / 2) < 2
    assert dots(root, "class-floor") == []


def test_lidar_from_above_marks_wrong_returns_and_says_how_many_are_right() -> None:
    points = np.array([[3, 0, 0], [0, 3, 0], [-3, 0, 0], [0, -3, 0]], np.float32)
    entry = {"points": points, "predicted": np.array([0, 1, 2, 3]), "truth": np.array([0, 1, 2, 255])}
    drawn, notes = maps.lidar_from_above(entry)
    assert dots(parse(drawn), "wrong") == []
    assert notes == ["100.0 % of 3 returns labelled as the truth has them."]
    drawn, notes = maps.lidar_from_above({**entry, "truth": np.array([1, 1, 2, 3])})
    assert len(dots(parse(drawn), "wrong")) == 1
    assert notes == ["75.0 % of 4 returns labelled as the truth has them."]


def test_lidar_from_above_draws_all_sectors_of_prediction_and_truth() -> None:
    entry = {"points": np.full((4, 3), 2.0), "clearance": np.full(16, 3.0), "clearance_truth": np.full(16, 4.0)}
    root = parse(maps.lidar_from_above(entry)[0])
    for name in ("clearance", "clearance-truth"):
        (sectors,) = of_class(root, "path", name)
        assert sectors.get("d").count("A") == 16
    assert len(of_class(root, "rect", "corridor")) == 1


def test_lidar_without_a_return_is_not_drawn() -> None:
    assert maps.lidar_from_above({"points": np.zeros((8, 3))}) == ("", [])
    assert maps.lidar_from_above({}) == ("", [])


def test_walk_draws_footprints_route_movers_and_contacts() -> None:
    frames = walk()
    frames[20]["contacts"] = [{"sim_time": 2.0, "body": "/hand", "other": "/shelf"}]
    plan = {
        "bounds": [0, 0, 10, 6],
        "footprints": [
            {"class": "structure", "label": "north wall", "polygon": [[0, 5.5], [10, 5.5], [10, 6], [0, 6]]},
            {"class": "floor", "polygon": [[0, 0], [10, 0], [10, 6]]},
            {"class": "person", "polygon": [[5, 4], [5.4, 4]]},
        ],
        "route": [[1, 2], [4, 2], [4, 5]],
        "movers": [{"name": "worker", "start": [6, 3]}, {"path": [[8, 1], [9, 1]]}],
    }
    drawn, _ = maps.walked_path(frames, plan, sample_ticks=[10, 30])
    root = parse(drawn)
    (footprint,) = of_class(root, "path", "footprint")
    assert "class-structure" in footprint.get("style")
    assert "north wall" in texts(root)
    assert len(of_class(root, "path", "route")) == 1
    assert len(of_class(root, "circle", "waypoint")) == 3
    assert len(of_class(root, "circle", "mover")) == 2
    (contact,) = of_class(root, "path", "contact")
    assert contact[0].text == "contact at 2.00 s: /hand with /shelf"
    assert {"1", "2", "contact (1)"} <= set(texts(root))
    assert root.get("aria-label") == "Floor plan with a walk of 2.5 m and 1 contacts."


def test_walk_is_coloured_by_speed() -> None:
    frames = walk(40)
    for tick in range(20, 40):
        frames[tick]["pose"] = [1.95 + 0.1 * (tick - 19), 2.0, 0.0]
    styles = {element.get("style") for element in of_class(parse(maps.walked_path(frames, None)[0]), "path", "walk")}
    assert len(styles) == 2
    assert "stroke:var(--speed-5)" in styles


def test_walk_without_plan_pose_or_parts_of_the_plan() -> None:
    assert maps.walked_path([], None) == ("", [])
    assert maps.walked_path([frame(0, pose=[None, 1.0, 0.0])], {}) == ("", [])
    for plan in (None, {}, {"bounds": None, "footprints": [], "route": [], "movers": []}, {"route": None}):
        drawn, _ = maps.walked_path(walk(3), plan)
        assert len(of_class(parse(drawn), "circle", "start")) == 1
        assert "nan" not in drawn


def test_a_walk_that_stands_still_is_drawn() -> None:
    drawn, _ = maps.walked_path([frame(tick, pose=[1.0, 1.0, 0.0], contacts=[]) for tick in range(5)], None)
    assert "nan" not in drawn
    parse(drawn)


def test_a_tall_plan_is_turned_and_says_so() -> None:
    _, notes = maps.walked_path(walk(), {"bounds": [0, 0, 8, 40]})
    assert notes == ["The plan is turned by 90°: +y points right, +x down."]


def test_hostile_labels_are_escaped() -> None:
    plan = {"footprints": [{"class": "x", "label": "<script>", "polygon": [[0, 0], [9, 0], [9, 9], [0, 9]]}]}
    drawn, _ = maps.walked_path(walk(), plan)
    parse(drawn)
    assert "<script" not in drawn
