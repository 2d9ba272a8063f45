"""Properties of the configuration loader: whatever it is given loads or is refused in words, and dumps read back."""

from __future__ import annotations

import math

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.config import RunConfig
from saccade.configuration import configuration_yaml, load_configuration
from saccade.errors import ConfigurationError
from saccade.yamlfile import dump_value, read_text

SMALL = "scene: room.usda\nsensors: {eye: {kind: camera, prim: head}}\n"

SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["camera", "lidar", "image", "eye", "scene", "auto", "1e3", "~", "no", "0x1f", "<<", "2020-01-01"]),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(
        [*RunConfig.model_fields, "base", "kind", "prim", "mount", "eye", "frames", "inputs", "noise", "0"]
    ),
    st.text(max_size=6),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@SETTINGS
@given(text=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_bytes_load_or_give_a_configuration_error(write, text):
    try:
        load_configuration(write(text))
    except ConfigurationError as error:
        assert str(error)


@SETTINGS
@given(values=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_yaml_loads_or_gives_a_configuration_error(write, values):
    text = yaml.safe_dump(values, allow_unicode=True)
    try:
        load_configuration(write(text))
    except ConfigurationError as error:
        assert str(error)


@SETTINGS
@given(key=st.lists(KEYS, min_size=1, max_size=4), value=VALUES)
def test_any_override_applies_or_gives_a_configuration_error(write, key, value):
    override = f"{'.'.join(key)}={dump_value(value)}"
    try:
        load_configuration(write(SMALL), overrides=[override])
    except ConfigurationError as error:
        assert str(error)


@SETTINGS
@given(
    description=st.text(max_size=40),
    name=st.none() | st.text(min_size=1, max_size=10),
    frames=st.integers(1, 10**7),
    deadline=st.floats(min_value=1e-6, max_value=1e9),
    fov=st.tuples(st.floats(-90, 0), st.floats(1, 90)),
    labels=st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(["floor", "person"]), max_size=3),
)
def test_dumped_configuration_loads_as_the_same(write, description, name, frames, deadline, fov, labels):
    config = RunConfig.model_validate(
        {
            "description": description,
            "scene": "a.usda",
            "sensors": {"eye": {"kind": "lidar", "prim": "x", "vertical_fov": fov}},
            "simulator": {"labels": labels},
            "run": {"name": name, "frames": frames, "deadline_ms": deadline},
        }
    )
    assert load_configuration(write(configuration_yaml(config))).config == config


@settings(max_examples=300, deadline=None)
@given(value=VALUES)
def test_dumped_value_reads_as_the_same(value):
    def same(a, b):
        if isinstance(a, float) and math.isnan(a):
            return isinstance(b, float) and math.isnan(b)
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    text = dump_value(value)
    assert "\n" not in text
    try:
        read = read_text(text, "value").value
    except ConfigurationError as error:
        assert "levels deep" in str(error) or "half a character" in str(error)
        return
    assert same(value, read), (text, read)
