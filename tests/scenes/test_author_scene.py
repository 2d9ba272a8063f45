"""What the authored scenes promise: the same bytes, standard schemas, labels, clear routes, moving people."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path

import pytest

pytest.importorskip("pxr")

from pxr import Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade

from saccade.frame import CLASSES
from saccade.scenes.author_plan import Footprint, distance_to_line
from saccade.scenes.author_poses import free_space
from saccade.scenes.author_scene import author_bench, author_scene
from saccade.scenes.make import make_scenes

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT / "scenes"
SHIPPED = ("warehouse", "corridor")
RANDOM_SEEDS = tuple(range(12))

PRIM_TYPES = {
    "", "Xform", "Scope", "Cube", "Sphere", "Cylinder", "Cone", "Capsule", "Mesh", "PointInstancer", "Camera",
    "Material", "Shader", "DistantLight", "DomeLight", "PhysicsScene", "PhysicsRevoluteJoint",
}  # fmt: skip
API_SCHEMAS = {
    "PhysicsArticulationRootAPI", "PhysicsRigidBodyAPI", "PhysicsMassAPI", "PhysicsCollisionAPI",
    "PhysicsDriveAPI:angular", "PhysicsFilteredPairsAPI", "PhysicsMaterialAPI", "MaterialBindingAPI",
    "SemanticsLabelsAPI:class", "SemanticsLabelsAPI:object", "SemanticsAPI:Semantics",
}  # fmt: skip


def prims_of(path: Path, *, abstract: bool = False):
    """Yields the prims of a scene while its stage is open."""
    stage = Usd.Stage.Open(str(path))
    yield from stage.TraverseAll() if abstract else stage.Traverse()


def make_scenes_script():
    spec = importlib.util.spec_from_file_location("make_scenes", ROOT / "scripts" / "make_scenes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_scenes(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("random")
    return [author_scene(folder / f"random_{s}.usda", layout="random", seed=s) for s in RANDOM_SEEDS]


@pytest.fixture(scope="session")
def every_scene(random_scenes) -> list[Path]:
    return [*(SCENES / f"{name}.usda" for name in (*SHIPPED, "bench", "humanoid")), *random_scenes]


def test_the_committed_scenes_are_a_fresh_make(tmp_path):
    script = make_scenes_script()
    make_scenes(tmp_path)
    assert script.differences(tmp_path, SCENES) == []


def test_a_difference_is_found(tmp_path):
    script = make_scenes_script()
    author_bench(tmp_path / "a" / "bench.usda")
    author_bench(tmp_path / "b" / "bench.usda")
    assert script.differences(tmp_path / "a", tmp_path / "b") == []
    (tmp_path / "b" / "bench.usda").write_text("#usda 1.0\n")
    assert script.differences(tmp_path / "a", tmp_path / "b") == ["bench.usda: other contents"]


@pytest.mark.parametrize("seed", [0, 5])
def test_same_seed_same_bytes_and_other_seed_other_scene(tmp_path, seed):
    first = author_scene(tmp_path / "a" / "s.usda", layout="random", seed=seed)
    second = author_scene(tmp_path / "b" / "s.usda", layout="random", seed=seed)
    other = author_scene(tmp_path / "c" / "s.usda", layout="random", seed=seed + 1)
    assert first.read_bytes() == second.read_bytes()
    textures = sorted(p.name for p in (tmp_path / "a" / "textures").iterdir())
    assert textures == sorted(p.name for p in (tmp_path / "b" / "textures").iterdir())
    for name in textures:
        assert (tmp_path / "a" / "textures" / name).read_bytes() == (tmp_path / "b" / "textures" / name).read_bytes()
    assert first.read_bytes() != other.read_bytes()
    assert not [p.name for p in tmp_path.rglob(".*")], "temporary files were left behind"


def test_sizes_stay_small(every_scene):
    assert all(path.stat().st_size < 1_500_000 for path in every_scene)
    assert sum(p.stat().st_size for p in SCENES.rglob("*") if p.is_file()) < 3_000_000


def test_stages_are_in_metres_with_z_up_and_compose_without_errors(every_scene):
    for path in every_scene:
        stage = Usd.Stage.Open(str(path))
        assert UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z
        assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
        assert stage.GetDefaultPrim(), path
        assert stage.GetTimeCodesPerSecond() == 24.0
        assert stage.GetCompositionErrors() == []
        for prim in stage.TraverseAll():
            if prim.IsA(UsdShade.Shader):
                file = UsdShade.Shader(prim).GetInput("file")
                assert not file or Path(file.Get().resolvedPath).is_file(), prim.GetPath()


def test_only_standard_schemas_are_used(every_scene):
    for path in every_scene:
        for prim in prims_of(path, abstract=True):
            assert prim.GetTypeName() in PRIM_TYPES, prim.GetPath()
            # Authored ones only: the composed list also holds what a type brings along, such as LightAPI.
            for spec in prim.GetPrimStack():
                if spec.HasInfo("apiSchemas"):
                    assert set(spec.GetInfo("apiSchemas").GetAddedOrExplicitItems()) <= API_SCHEMAS, prim.GetPath()
            for attribute in prim.GetAuthoredAttributes():
                known = attribute.IsDefined() and not attribute.IsCustom()
                assert known, attribute.GetPath()


def test_every_visible_shape_is_labelled_in_both_forms(every_scene):
    seen = set()
    for path in every_scene:
        for prim in prims_of(path, abstract=True):
            if not prim.IsA(UsdGeom.Gprim) or prim.IsAbstract():
                continue
            if UsdGeom.Imageable(prim).ComputePurpose() == UsdGeom.Tokens.guide:
                continue
            labels = prim.GetAttribute("semantics:labels:class").Get()
            assert labels is not None and len(labels) == 1, prim.GetPath()
            assert labels[0] in CLASSES and labels[0] != "background"
            assert prim.GetAttribute("semantic:Semantics:params:semanticType").Get() == "class"
            assert prim.GetAttribute("semantic:Semantics:params:semanticData").Get() == labels[0]
            assert "SemanticsLabelsAPI:class" in prim.GetAppliedSchemas()
            seen.add(labels[0])
    assert seen == set(CLASSES) - {"background"}


def test_colliders_carry_a_label_or_inherit_one(every_scene):
    for path in every_scene:
        for prim in prims_of(path):
            if not prim.HasAPI(UsdPhysics.CollisionAPI):
                continue
            above = prim
            while above and not above.HasAttribute("semantics:labels:class"):
                above = above.GetParent()
            assert above, prim.GetPath()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenes_hold_what_they_promise(name):
    stage = Usd.Stage.Open(str(SCENES / f"{name}.usda"))
    prims = list(stage.Traverse())
    kinematic = [
        p for p in prims if p.HasAPI(UsdPhysics.RigidBodyAPI) and p.GetAttribute("physics:kinematicEnabled").Get()
    ]
    objects = [p.GetAttribute("semantics:labels:object").Get()[0] for p in kinematic]
    assert objects.count("person") == {"warehouse": 4, "corridor": 2}[name]
    assert objects.count("forklift") == {"warehouse": 1, "corridor": 0}[name]
    assert {str(p.GetTypeName()) for p in prims} >= {"PointInstancer", "DistantLight", "DomeLight", "PhysicsScene"}
    textured = [
        p for p in prims if p.IsA(UsdGeom.Mesh) and UsdShade.MaterialBindingAPI(p).GetDirectBinding().GetMaterial()
    ]
    assert all(UsdGeom.PrimvarsAPI(p).GetPrimvar("st").HasValue() for p in textured)
    assert len(textured) > 10
    articulations = [p for p in prims if p.HasAPI(UsdPhysics.ArticulationRootAPI)]
    assert [str(p.GetPath()) for p in articulations] == ["/World/Humanoid"]


def test_random_scenes_are_of_both_kinds_and_lit(random_scenes):
    stages = [Usd.Stage.Open(str(path)) for path in random_scenes]
    racks = [bool(stage.GetPrimAtPath("/World/Racks")) for stage in stages]
    assert any(racks) and not all(racks)
    for stage in stages:
        assert [p for p in stage.Traverse() if p.IsA(UsdLux.DistantLight)]
        assert [p for p in stage.Traverse() if p.IsA(UsdLux.DomeLight)]
        assert stage.GetPrimAtPath("/World/Humanoid").HasAPI(UsdPhysics.ArticulationRootAPI)


def points_of(stage: Usd.Stage, key: str) -> list[tuple[float, float]]:
    flat = list(stage.GetDefaultPrim().GetCustomDataByKey("saccade")[key])
    return list(zip(flat[0::2], flat[1::2], strict=True))


def route_of(stage: Usd.Stage) -> list[tuple[float, float]]:
    return points_of(stage, "route")


def densely(route, step=0.1):
    for a, b in zip(route, [*route[1:], route[0]], strict=True):
        count = max(1, math.ceil(math.dist(a, b) / step))
        for k in range(count):
            yield (a[0] + (b[0] - a[0]) * k / count, a[1] + (b[1] - a[1]) * k / count)


def is_moving(stage: Usd.Stage, footprint: Footprint) -> bool:
    """Says whether a footprint belongs to a person or a vehicle at its first place."""
    for group in ("/World/People", "/World/Vehicles"):
        for prim in stage.GetPrimAtPath(group).GetChildren() if stage.GetPrimAtPath(group) else []:
            x, y, _ = prim.GetAttribute("xformOp:translate").Get()
            if math.hypot(x - footprint.x, y - footprint.y) < 1.8:
                return True
    return False


@pytest.mark.parametrize("name", SHIPPED)
def test_the_route_is_clear_of_everything_but_what_obstructs_it_on_purpose(name):
    stage = Usd.Stage.Open(str(SCENES / f"{name}.usda"))
    route = route_of(stage)
    rooms, obstacles = free_space(SCENES / f"{name}.usda")
    obstructions = points_of(stage, "obstructions")
    static = [f for f in obstacles if not is_moving(stage, f)]
    in_the_way = []
    assert len(obstructions) >= 4
    for place in obstructions:
        # Half in the way: a follower of the route would touch it, and beside it there is room to pass.
        own = [f for f in obstacles if math.dist((f.x, f.y), place) < 0.05]
        in_the_way += own
        x, y = min(densely(route), key=lambda p: min(f.distance(*p) for f in own))
        assert min(f.distance(x, y) for f in own) < 0.3
        away = math.atan2(y - place[1], x - place[0])
        passing = (x + 0.55 * math.cos(away), y + 0.55 * math.sin(away))
        assert min(f.distance(*passing) for f in static) >= 0.45
    static = [f for f in static if f not in in_the_way]
    assert len(static) > 10
    for x, y in densely(route):
        assert any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in rooms)
        assert min(f.distance(x, y) for f in static) >= 0.9
    turns = [
        abs(math.remainder(math.atan2(c[1] - b[1], c[0] - b[0]) - math.atan2(b[1] - a[1], b[0] - a[0]), 2 * math.pi))
        for a, b, c in zip(route, [*route[1:], route[0]], [*route[2:], *route[:2]], strict=True)
    ]
    assert max(turns) < math.radians(80)
    start = stage.GetPrimAtPath("/World/Humanoid").GetAttribute("xformOp:translate").Get()
    assert distance_to_line(start[0], start[1], route) < 0.3


@pytest.mark.parametrize("name", SHIPPED)
def test_people_and_vehicles_pass_beside_the_route(name):
    stage = Usd.Stage.Open(str(SCENES / f"{name}.usda"))
    route = route_of(stage)
    nearest = math.inf
    for group in ("/World/People", "/World/Vehicles"):
        for prim in stage.GetPrimAtPath(group).GetChildren() if stage.GetPrimAtPath(group) else []:
            for place in samples(prim, "xformOp:translate"):
                distance = distance_to_line(place[0], place[1], route)
                assert distance >= (1.0 if group.endswith("People") else 1.9)
                nearest = min(nearest, distance)
    assert nearest < 3.0


def samples(prim, name):
    attribute = prim.GetAttribute(name)
    return [attribute.Get(code) for code in attribute.GetTimeSamples()]


def test_movers_walk_closed_paths_at_walking_pace(every_scene):
    moving = 0
    for path in every_scene:
        stage = Usd.Stage.Open(str(path))
        end = stage.GetEndTimeCode()
        for prim in stage.Traverse():
            place = prim.GetAttribute("xformOp:translate")
            if not (place and place.GetTimeSamples()):
                continue
            moving += 1
            assert prim.HasAPI(UsdPhysics.RigidBodyAPI) and prim.GetAttribute("physics:kinematicEnabled").Get()
            codes = place.GetTimeSamples()
            assert codes[0] == 0.0 and codes[-1] == end
            points, yaws = samples(prim, "xformOp:translate"), samples(prim, "xformOp:rotateZ")
            assert place.Get() == points[0]
            assert (points[0] - points[-1]).GetLength() < 0.02
            assert math.remainder(yaws[-1] - yaws[0], 360.0) == pytest.approx(0.0, abs=1.0)
            steps = [(b - a).GetLength() for a, b in itertools.pairwise(points)]
            gap = (codes[1] - codes[0]) / stage.GetTimeCodesPerSecond()
            mean = sum(steps) / (gap * len(steps))
            assert 0.05 < mean < 1.6 and max(steps) / gap < 2.2
            if "person" in prim.GetName():
                assert 0.3 < mean
                for a, b, yaw in zip(points[:-1], points[1:], yaws[:-1], strict=True):
                    heading = math.degrees(math.atan2(b[1] - a[1], b[0] - a[0]))
                    assert abs(math.remainder(heading - yaw, 360.0)) < 60
            assert max(abs(b - a) for a, b in itertools.pairwise(yaws)) < 90, "yaw is not continuous"
    assert moving > 10


def test_static_things_are_no_rigid_bodies(every_scene):
    for path in every_scene:
        for prim in prims_of(path):
            if prim.HasAPI(UsdPhysics.RigidBodyAPI):
                name = str(prim.GetPath())
                assert any(part in name for part in ("/Humanoid/", "/People/person_", "/Vehicles/forklift_")), name


def test_the_bench_is_primitive_and_has_its_mounts():
    stage = Usd.Stage.Open(str(SCENES / "bench.usda"))
    shapes = [p for p in stage.Traverse() if p.IsA(UsdGeom.Gprim)]
    assert 20 <= len(shapes) <= 25
    assert not [p for p in shapes if p.IsA(UsdGeom.Mesh)]
    assert stage.GetPrimAtPath("/World/camera").IsA(UsdGeom.Camera)
    assert stage.GetPrimAtPath("/World/lidar_mount")
