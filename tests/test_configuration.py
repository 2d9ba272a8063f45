"""Loading of configurations: files, bases, options, ``--set``, and what is said when something is wrong."""

from __future__ import annotations

import json

import pytest

from saccade import paths
from saccade.config import RunConfig
from saccade.configuration import ERRORS_SHOWN, configuration_yaml, dotted, leaves, load_configuration
from saccade.errors import ConfigurationError, ModelError, RecordError, SaccadeError, SceneError
from saccade.fields import field_facts
from saccade.yamlfile import read_text

SMALL = """\
scene: room.usda
sensors:
  eye:
    kind: camera
    prim: head
  spin: {kind: lidar, prim: top, rate: 5}
"""


def problem(path, **options) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, **options)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_defaults_files_and_options_are_told_apart(write):
    loaded = load_configuration(write(SMALL), overrides=["run.deadline_ms=50"], frames=80, simulator="newton")
    assert loaded.config.run.frames == 80
    assert loaded.config.run.deadline_ms == 50
    assert loaded.config.simulator.backend == "newton"
    assert loaded.config.sensors["spin"].rate == 5
    assert loaded.sources["run.frames"] == "--frames"
    assert loaded.sources["run.deadline_ms"] == "--set"
    assert loaded.sources["simulator.backend"] == "--simulator"
    assert loaded.sources["sensors.spin.rate"] == "file run.yaml"
    assert loaded.sources["sensors.eye.rate"] == "default"
    assert loaded.name == "run"


def test_every_field_has_a_source(write):
    loaded = load_configuration(write(SMALL))
    fields = {dotted(path) for path, _ in leaves(loaded.config.model_dump(mode="json"))}
    assert set(loaded.sources) == fields
    assert len(fields) > 50


@pytest.mark.parametrize("name", ["warehouse", "corridor"])
def test_shipped_configurations_hold_what_the_issue_demands(name):
    config = load_configuration(name).config
    camera, lidar = config.sensors["head_camera"], config.sensors["lidar"]
    assert (camera.width, camera.height, camera.rate) == (224, 224, 10)
    assert (lidar.channels, lidar.columns, lidar.rate) == (32, 1024, 10)
    assert config.run.frames == 400
    assert config.scene == f"{name}.usda"
    budgets = config.budgets
    assert (budgets.latency_p95_ms, budgets.deadline_miss_rate) == (100, 0.05)
    assert (budgets.dropped, budgets.stale, budgets.contacts) == (0, 0, 0)
    assert (budgets.camera_miou, budgets.lidar_miou, budgets.hazard_recall) == (0.70, 0.80, 0.95)
    assert budgets.realtime_factor is None


def test_shipped_configuration_is_found_by_name_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_configuration("corridor").path == paths.shipped("configuration") / "corridor.yaml"
    assert load_configuration("config/warehouse.yaml").path == paths.shipped("configuration") / "warehouse.yaml"


def test_own_file_comes_before_a_shipped_one_of_the_same_name(write):
    assert load_configuration("warehouse").path != write(SMALL, "warehouse.yaml")
    assert load_configuration("warehouse").config.scene == "room.usda"


def test_missing_file_says_where_it_looked_and_what_there_is(write):
    write(SMALL, "mine.yaml")
    text = problem("min.yaml")
    assert "there is no configuration 'min.yaml'" in text
    assert "mine.yaml" in text and "warehouse.yaml" in text


# ------------------------------------------------------------------------------------------------------- base


def test_base_is_merged_field_by_field(write):
    write(SMALL, "base.yaml")
    loaded = load_configuration(write("base: base.yaml\nsensors: {eye: {rate: 2}}\nrun: {frames: 9}\n"))
    assert loaded.config.sensors["eye"].rate == 2
    assert loaded.config.sensors["eye"].prim == "head"
    assert loaded.config.sensors["spin"].rate == 5
    assert loaded.sources["sensors.eye.rate"] == "file run.yaml"
    assert loaded.sources["sensors.eye.prim"] == "file base.yaml"


def test_base_lists_are_replaced(write):
    write(SMALL.replace("prim: head", "prim: head\n    outputs: [color, depth, labels]"), "base.yaml")
    loaded = load_configuration(write("base: base.yaml\nsensors: {eye: {outputs: [color]}}\n"))
    assert loaded.config.sensors["eye"].outputs == ["color"]


def test_error_in_a_base_names_the_base_file(write):
    write(SMALL + "run: {fraems: 3}\n", "below/base.yaml")
    assert "below/base.yaml:7: run.fraems: unknown field" in problem(write("base: below/base.yaml\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: run.yaml\n", "in a circle: run.yaml -> run.yaml"),
        ("base: nothing.yaml\n", "run.yaml:1: base: there is no configuration 'nothing.yaml'"),
        ("base: 3\n", "run.yaml:1: base: expected the path of another configuration file, got 3"),
    ],
)
def test_bad_base(write, text, expected):
    assert expected in problem(write(text))


def test_circle_over_two_files(write):
    write("base: run.yaml\n", "b.yaml")
    assert "run.yaml -> b.yaml -> run.yaml" in problem(write("base: b.yaml\n"))


# ------------------------------------------------------------------------------------------------ wrong fields


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("run:\n  fraems: 3\n", "run.yaml:8: run.fraems: unknown field; did you mean 'frames'?"),
        ("frames: 3\n", "run.yaml:7: frames: unknown field; did you mean 'run.frames'?"),
        (
            "budgets: {latency_p95: 3}\n",
            "run.yaml:7: budgets.latency_p95: unknown field; did you mean 'latency_p95_ms'?",
        ),
        ("zzz: 3\n", "known fields here: description, scene, simulator"),
        ("run:\n  frames: many\n", "run.yaml:8: run.frames: expected integer >= 1, <= 10000000, got 'many'"),
        ("run:\n  frames: '400'\n", "run.yaml:8: run.frames: expected integer >= 1, <= 10000000, got '400'"),
        ("run: {frames: true}\n", "run.frames: expected integer >= 1, <= 10000000, got true"),
        ("run: {frames: 0}\n", "run.frames: expected integer >= 1, <= 10000000, got 0"),
        ("run: {frames: 1.5}\n", "run.frames: expected integer >= 1, <= 10000000, got 1.5"),
        ("run: 3\n", "run: expected a section with fields below it, got 3"),
        ("run: {deadline_ms: .nan}\n", "run.deadline_ms: expected number > 0, got .nan"),
        ("run: {deadline_ms: .inf}\n", "run.deadline_ms: expected number > 0, got .inf"),
        ("simulator: {backend: newtn}\n", "simulator.backend: expected auto | newton | replay | isaac, got 'newtn'"),
        ("simulator: {act_delay: slow}\n", "simulator.act_delay: expected none | measured or number, got 'slow'"),
        ("simulator: {act_delay: -1}\n", "simulator.act_delay: a delay lies between 0 and 10000 ms, got -1"),
        ("simulator: {labels: {rack: thing}}\n", "label 'rack' counts as 'thing', which is none of floor"),
        ("record: {sensors: 1}\n", "record.sensors: expected true | false, got 1"),
        ("networks: {n: {}}\n", "networks.n.model: missing; expected text"),
        ("networks: {n: {model: a.onnx, inputs: {}}}\n", "networks.n.inputs: a network needs at least one input"),
        (
            "networks: {n: {model: a.onnx, inputs: {x: {kind: image, sensor: ey}}}}\n",
            "run.yaml:7: networks.n.inputs.x.sensor: no sensor 'ey'; configured are: eye, spin",
        ),
        (
            "networks: {n: {model: a.onnx, inputs: {x: {kind: image, sensor: spin}}}}\n",
            "networks.n.inputs.x: kind 'image' needs a camera, 'spin' is a lidar",
        ),
        (
            "networks: {n: {model: a.onnx, inputs: {x: {kind: picture, sensor: eye}}}}\n",
            "networks.n.inputs.x.kind: expected 'image' or 'range_image', got 'picture'",
        ),
    ],
)
def test_wrong_field_is_named_with_its_line_and_the_remedy(write, more, expected):
    assert expected in problem(write(SMALL + more))


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        ("{kind: camera, prim: a, widht: 9}", "run.yaml:3: sensors.eye.widht: unknown field; did you mean 'width'?"),
        ("{kind: lidar, prim: a, width: 9}", "sensors.eye.width: unknown field"),
        ("{kind: camra, prim: a}", "run.yaml:3: sensors.eye.kind: expected 'camera' or 'lidar', got 'camra'"),
        ("{prim: a}", "sensors.eye: 'kind' is missing; expected 'kind: camera' or 'kind: lidar'"),
        ("{knid: camera, prim: a}", "'knid' is an unknown field; did you mean 'kind'?"),
        ("{kind: camera}", "sensors.eye: a sensor needs 'prim' (a prim of the scene) or 'mount' (a link and a pose)"),
        ("{kind: camera, mount: {}}", "sensors.eye.mount.link: missing; expected text"),
        ("{kind: camera, prim: a, rate: 100}", "run.yaml:3: sensors.eye.rate: 100 Hz is faster than one sample"),
        ("{kind: camera, prim: a, focal: [1]}", "sensors.eye.focal: expected [number, number] or null, got [1]"),
        ("{kind: camera, prim: a, focal: [1, b]}", "sensors.eye.focal: expected [number, number] or null, got [1, b]"),
        (
            "{kind: camera, prim: a, outputs: [colour]}",
            "expected list of color | depth | labels | normals, got [colour]",
        ),
        ("{kind: lidar, prim: a, vertical_fov: [9, 1]}", "vertical_fov is [lowest, highest] in degrees"),
        ("{kind: lidar, prim: a, range_min: 40}", "range_min must be below range_max"),
        ("null", "sensors.eye: expected a section with fields below it, got null"),
        ("3", "sensors.eye: expected a section with fields below it, got 3"),
    ],
)
def test_wrong_sensor(write, sensor, expected):
    assert expected in problem(write(f"scene: a.usda\nsensors:\n  eye: {sensor}\n"))


def test_missing_top_level_fields(write):
    text = problem(write("description: nothing else\n"))
    assert "run.yaml:1: scene: missing; expected text" in text
    assert "sensors: missing" in text
    assert "sensors: at least one camera or LiDAR is needed" in problem(write("scene: a.usda\nsensors: {}\n"))


def test_all_errors_are_shown_at_once(write):
    text = problem(write(SMALL + "run: {fraems: 1, sead: 2}\nengin: {}\n"), overrides=["budgets.contact=1"])
    assert len(text.splitlines()) == 4
    assert "did you mean 'seed'?" in text
    assert "--set: budgets.contact: unknown field; did you mean 'contacts'?" in text


def test_a_flood_of_errors_is_cut(write):
    text = problem(write(SMALL + "".join(f"wrong{i}: 1\n" for i in range(50))))
    assert len(text.splitlines()) == ERRORS_SHOWN + 1
    assert text.endswith("... and 30 more")


# ------------------------------------------------------------------------------------------------- wrong YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "run.yaml: the file is empty"),
        ("# nothing\n", "run.yaml: the file is empty"),
        ("- a\n- b\n", "run.yaml:1: expected 'field: value' lines, got [a, b]"),
        ("scene: a\nrun: [\n", "run.yaml:3: not valid YAML"),
        ("scene: a\n\tsensors: b\n", "run.yaml:2: not valid YAML"),
        ("scene: a\nscene: b\n", "run.yaml:2: 'scene' is given twice; it is already on line 1"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        (
            "scene: !!python/object:os.system x\n",
            "the tag 'tag:yaml.org,2002:python/object:os.system' is not supported",
        ),
        ("scene: *nowhere\n", "run.yaml:1: not valid YAML: found undefined alias"),
        ("scene: &a [*a]\n", "run.yaml:1: nested more than 40 levels deep"),
        ("? [a]\n: 1\n", "run.yaml:1: a field name is plain text"),
        ("<<: 3\n", "'<<' needs a section to take fields from"),
        (b"scene: \xff\xfe\n", "run.yaml:1: not UTF-8 text"),
        (b"scene: a\x00b\n", "run.yaml: not valid YAML"),
        ("scene: " + "[" * 2000, "not valid YAML"),
        ("scene: " + "[" * 60 + "]" * 60, "nested more than 40 levels deep"),
        ("#" * (1 << 20) + "\na", "larger than 1 MiB"),
    ],
)
def test_broken_file(write, text, expected):
    message = problem(write(text))
    assert expected in message or (expected == "not valid YAML" and "levels deep" in message)


def test_aliases_that_grow_without_bound_are_refused(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 50000 values" in problem(write("\n".join(lines)))


def test_a_folder_is_no_file(write, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert "there is no configuration 'folder.yaml'" in problem("folder.yaml")


def test_anchors_and_merge_keys_work(write):
    text = "scene: a\nsensors:\n  a: &a {kind: camera, prim: x, rate: 5}\n  b: {<<: *a, prim: y}\n"
    config = load_configuration(write(text)).config
    assert (config.sensors["b"].rate, config.sensors["b"].prim) == (5, "y")


def test_yaml_1_2_words_and_numbers(write):
    text = SMALL + "description: no\nsimulator: {labels: {on: obstacle, 12: person}, step: 2e-2}\n"
    config = load_configuration(write(text)).config
    assert config.description == "no"
    assert config.simulator.labels == {"on": "obstacle", "12": "person"}
    assert config.simulator.step == 0.02


# ------------------------------------------------------------------------------------------------------ --set


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("run.frames=7", ("run", "frames"), 7),
        ("run.name=12", ("run", "name"), None),
        ("run.name='12'", ("run", "name"), "12"),
        ("budgets.contacts=null", ("budgets", "contacts"), None),
        ("budgets.latency_p95_ms=1e2", ("budgets", "latency_p95_ms"), 100.0),
        ("simulator.act_delay=measured", ("simulator", "act_delay"), "measured"),
        ("simulator.labels.big_rack=structure", ("simulator", "labels", "big_rack"), "structure"),
        ("sensors.eye.outputs=[color]", ("sensors", "eye", "outputs"), ["color"]),
        ("sensors.eye.outputs.2=normals", ("sensors", "eye", "outputs"), ["color", "depth", "normals"]),
        ("sensors.spin.vertical_fov.1=5", ("sensors", "spin", "vertical_fov"), [-45.0, 5.0]),
        ("sensors.spin={kind: camera, prim: q}", ("sensors", "spin", "kind"), "camera"),
        ("sensors.eye.mount.link=head", ("sensors", "eye", "mount", "link"), "head"),
        ("description=a=b", ("description",), "a=b"),
        ("description=", ("description",), None),
    ],
)
def test_set(write, override, field, value):
    if value is None and not override.endswith("null"):
        problem(write(SMALL), overrides=[override])
        return
    loaded = load_configuration(write(SMALL), overrides=[override])
    found = loaded.config.model_dump(mode="json")
    for key in field:
        found = found[key]
    assert found == value
    assert loaded.sources[dotted(field)] == "--set"


def test_later_set_wins_and_beats_options(write):
    overrides = ["run.frames=5", "run.frames=6"]
    assert load_configuration(write(SMALL), overrides=overrides, frames=4).config.run.frames == 6


def test_set_reaches_names_with_dots(write):
    text = SMALL + "networks: {n: {model: m.onnx, inputs: {input.1: {kind: image, sensor: eye}}}}\n"
    loaded = load_configuration(write(text), overrides=["networks.n.inputs.input.1.resize=letterbox"])
    assert loaded.config.networks["n"].inputs["input.1"].resize == "letterbox"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.frames", "--set 'run.frames': expected field=value, such as --set run.frames=100"),
        ("=3", "expected field=value"),
        ("run..frames=3", "expected field=value"),
        ("run.frames=[", "--set run.frames:1: not valid YAML"),
        ("run.fraems=3", "--set: run.fraems: unknown field; did you mean 'frames'?"),
        ("runn.frames=3", "--set: runn: unknown field; did you mean 'run'?"),
        ("run.frames.a=3", "--set: run.frames.a: run.frames is a plain value"),
        ("scene.a=3", "--set: scene.a: scene is a plain value (text) and has no field 'a'"),
        ("sensors.eye.outputs.7=color", "is a list of 3; expected an index from 0 to 2"),
        ("sensors.eye.outputs.x=color", "sensors.eye.outputs"),
        ("base=other.yaml", "--set: base: unknown field"),
    ],
)
def test_bad_set(write, override, expected):
    assert expected in problem(write(SMALL), overrides=[override])


def test_option_with_a_bad_value_names_the_option(write):
    assert problem(write(SMALL), frames=0).startswith("--frames: run.frames: expected integer >= 1")
    assert problem(write(SMALL), seed=-1).startswith("--seed: run.seed: expected integer >= 0")


# ------------------------------------------------------------------------------------------------------ files


NETWORK = "networks: {n: {model: net.onnx, inputs: {x: {kind: image, sensor: eye}}}}\n"


def test_missing_scene_lists_where_it_looked_and_what_exists(write, tmp_path):
    (tmp_path / "rooms.usda").write_text("#usda 1.0")
    with pytest.raises(SceneError) as caught:
        load_configuration(write(SMALL)).check_files()
    text = str(caught.value)
    assert text.startswith("run.yaml:1: scene: there is no scene 'room.usda'")
    assert str(tmp_path / "room.usda") in text and "rooms.usda" in text


def test_missing_network(write, tmp_path):
    (tmp_path / "room.usda").touch()
    with pytest.raises(ModelError, match=r"run\.yaml:7: networks\.n\.model: there is no network 'net\.onnx'"):
        load_configuration(write(SMALL + NETWORK)).check_files()
    (tmp_path / "net.onnx").touch()
    load_configuration(write(SMALL + NETWORK)).check_files()


def test_paths_are_relative_to_the_file_that_names_them(write, tmp_path, monkeypatch):
    write(SMALL + NETWORK, "below/base.yaml")
    (tmp_path / "below" / "room.usda").touch()
    (tmp_path / "net.onnx").touch()
    top = write("base: ../below/base.yaml\nnetworks: {n: {model: ../net.onnx}}\n", "here/top.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_configuration(top)
    assert loaded.scene_path() == tmp_path / "below" / "room.usda"
    assert loaded.model_path("n") == tmp_path / "net.onnx"


def test_a_path_from_the_prompt_is_relative_to_the_working_folder_first(write, tmp_path, monkeypatch):
    top = write(SMALL, "here/top.yaml")
    (tmp_path / "here" / "other.usda").touch()
    (tmp_path / "other.usda").touch()
    assert load_configuration(top, overrides=["scene=other.usda"]).scene_path() == tmp_path / "other.usda"


def test_replay_needs_a_recording_and_no_scene(write, tmp_path):
    with pytest.raises(ConfigurationError, match=r"--set simulator\.recording=PATH"):
        load_configuration(write(SMALL), simulator="replay").check_files()
    with pytest.raises(RecordError, match=r"record\.sensors=true"):
        load_configuration(write(SMALL), simulator="replay", overrides=["simulator.recording=runs/none"]).check_files()
    (tmp_path / "runs" / "golden" / "sensors").mkdir(parents=True)
    loaded = load_configuration(write(SMALL), simulator="replay", overrides=["simulator.recording=runs/golden"])
    loaded.check_files()
    assert loaded.recording_path() == tmp_path / "runs" / "golden"


def test_url_is_left_to_isaac_sim(write):
    loaded = load_configuration(write(SMALL), overrides=["scene=omniverse://server/room.usd"])
    assert loaded.scene_path() == "omniverse://server/room.usd"
    with pytest.raises(SceneError, match="only Isaac Sim opens those"):
        load_configuration(
            write(SMALL), simulator="newton", overrides=["scene=omniverse://server/room.usd"]
        ).scene_path()


# ------------------------------------------------------------------------------------------------ dump, fields


def test_annotated_yaml_loads_as_the_same():
    loaded = load_configuration("warehouse")
    text = configuration_yaml(loaded.config, loaded.sources)
    again = RunConfig.model_validate_json(json.dumps(read_text(text, "dump").value))
    assert again == loaded.config
    assert "frames: 400  # file " in text


def test_every_field_is_documented_by_name_type_and_default():
    facts = {fact.name: fact for fact in field_facts()}
    assert facts["run.frames"].type == "integer >= 1, <= 10000000"
    assert facts["run.frames"].default == "400"
    assert "Judged decisions" in facts["run.frames"].description
    assert facts["scene"].default == "required"
    assert facts["sensors.<name>.noise.dropout"].default == "0"
    assert facts["networks.<name>.inputs.<name>.resize"].type == "stretch | letterbox"


def test_every_error_of_the_loader_is_one_that_the_command_line_prints():
    assert issubclass(ConfigurationError, SaccadeError)
