"""Semantic labels: both forms, inheritance, precedence, unknown names."""

from __future__ import annotations

import pytest

pytest.importorskip("pxr")
from pxr import Sdf, Usd, UsdGeom

from saccade.frame import FLOOR, OBSTACLE, PERSON, ROBOT, STRUCTURE
from saccade.scenes.labels import labels_from_stage, prim_labels


def _labelled(
    stage: Usd.Stage, path: str, *, modern: dict[str, list[str]] | None = None, older: str | None = None
) -> None:
    prim = UsdGeom.Xform.Define(stage, path).GetPrim()
    for instance, values in (modern or {}).items():
        prim.CreateAttribute(f"semantics:labels:{instance}", Sdf.ValueTypeNames.TokenArray).Set(values)
    if older:
        prim.CreateAttribute("semantic:Thing:params:semanticType", Sdf.ValueTypeNames.String).Set("class")
        prim.CreateAttribute("semantic:Thing:params:semanticData", Sdf.ValueTypeNames.String).Set(older)


def test_both_forms_and_inheritance() -> None:
    stage = Usd.Stage.CreateInMemory()
    _labelled(stage, "/a", modern={"class": ["floor"]})
    _labelled(stage, "/a/b/c")
    _labelled(stage, "/a/b/d", older="person")
    _labelled(stage, "/e")
    labels = labels_from_stage(stage)
    assert labels.class_of("/a") == FLOOR
    assert labels.class_of("/a/b/c") == FLOOR
    assert labels.owner_of("/a/b/c") == "/a"
    assert labels.class_of("/a/b/d") == PERSON
    assert labels.class_of("/e") is None
    assert labels.class_of("/ab") is None


def test_the_class_instance_and_the_newer_form_come_first() -> None:
    stage = Usd.Stage.CreateInMemory()
    _labelled(stage, "/a", modern={"brand": ["robot"], "class": ["wall"]}, older="person")
    assert prim_labels(stage.GetPrimAtPath("/a")) == ["wall", "robot"]
    assert labels_from_stage(stage).class_of("/a") == STRUCTURE


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Wall", STRUCTURE),
        ("wall_panel_02", STRUCTURE),
        ("traffic cone", OBSTACLE),
        ("Humanoid", ROBOT),
        ("pedestrian", PERSON),
        ("ground-plane", FLOOR),
        ("boxes", OBSTACLE),
        ("crates", OBSTACLE),
    ],
)
def test_common_names_are_known(label: str, expected: int) -> None:
    stage = Usd.Stage.CreateInMemory()
    _labelled(stage, "/a", modern={"class": [label]})
    labels = labels_from_stage(stage)
    assert labels.class_of("/a") == expected
    assert not labels.unknown


def test_unknown_names_are_obstacles_and_listed_and_can_be_mapped() -> None:
    stage = Usd.Stage.CreateInMemory()
    _labelled(stage, "/a", modern={"class": ["quux"]})
    _labelled(stage, "/b", modern={"class": ["quux"]})
    labels = labels_from_stage(stage)
    assert labels.class_of("/a") == OBSTACLE
    assert labels.unknown == {"quux": ["/a", "/b"]}
    mapped = labels_from_stage(stage, further={"Quux": "structure", "wall": "floor"})
    assert mapped.class_of("/a") == STRUCTURE
    assert not mapped.unknown


def test_a_collider_counts_as_what_it_stands_beside() -> None:
    stage = Usd.Stage.CreateInMemory()
    _labelled(stage, "/World/wall_1/face", modern={"class": ["wall"]})
    _labelled(stage, "/World/wall_1/collider")
    _labelled(stage, "/World/mixed/a", modern={"class": ["wall"]})
    _labelled(stage, "/World/mixed/b", modern={"class": ["box"]})
    labels = labels_from_stage(stage)
    assert labels.agreed_below("/World/wall_1/collider") == "/World/wall_1/face"
    assert labels.agreed_below("/World/mixed/collider") is None
    assert labels.agreed_below("/World/collider") is None
