"""Build options: what is refused, and what of them decides an engine."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.engines.build_worker import options_from_json, options_to_json
from saccade.engines.options import PRECISIONS, BuildOptions, ShapeRange
from saccade.errors import ConfigurationError


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"precision": "fp8"}, r"fp8.*fp32, fp16, int8"),
        ({"workspace": 0}, "workspace"),
        ({"time_limit": 0.0}, "time limit"),
        ({"time_limit": float("nan")}, "time limit"),
        ({"optimization_level": 6}, "0 to 5"),
    ],
)
def test_options_that_mean_nothing_are_refused(values, text):
    """The message names the field and what it may be."""
    with pytest.raises(ConfigurationError, match=text):
        BuildOptions(**values)


@pytest.mark.parametrize("shapes", [((1, 3), (1,), (1, 3)), ((2,), (1,), (3,)), ((1,), (4,), (3,)), ((0,), (1,), (1,))])
def test_shape_ranges_are_ordered(shapes):
    """Sizes run from minimum over optimum to maximum, in the same dimensions."""
    with pytest.raises(ConfigurationError, match="minimum"):
        ShapeRange(*shapes)


def test_time_and_place_do_not_decide_the_engine(tmp_path):
    """The time limit and where the samples lie are not part of the key; everything else is."""
    plain = BuildOptions(precision="int8")
    assert BuildOptions(precision="int8", time_limit=1.0, calibration=tmp_path).as_dict() == plain.as_dict()
    changed = [
        BuildOptions(precision="fp16"),
        BuildOptions(precision="int8", sparse=True),
        BuildOptions(precision="int8", workspace=1 << 20),
        BuildOptions(precision="int8", optimization_level=3),
        BuildOptions(precision="int8", shapes={"x": ShapeRange.fixed((1, 3))}),
    ]
    keys = {json.dumps(options.as_dict(), sort_keys=True) for options in (plain, *changed)}
    assert len(keys) == len(changed) + 1


def test_the_order_of_shapes_does_not_matter():
    """The same ranges in another order are the same options."""
    one, two = ShapeRange.fixed((1,)), ShapeRange.fixed((2,))
    first = BuildOptions(shapes={"a": one, "b": two}).as_dict()
    assert json.dumps(first) == json.dumps(BuildOptions(shapes={"b": two, "a": one}).as_dict())


@given(
    precision=st.sampled_from(PRECISIONS),
    sparse=st.booleans(),
    workspace=st.none() | st.integers(1, 1 << 40),
    level=st.none() | st.integers(0, 5),
    limit=st.none() | st.floats(0.001, 1e6),
    shapes=st.dictionaries(
        st.text(min_size=1), st.lists(st.integers(1, 4096), min_size=1, max_size=5).map(ShapeRange.fixed), max_size=3
    ),
)
def test_options_survive_the_way_to_the_child(precision, sparse, workspace, level, limit, shapes):
    """What is written as JSON for the building process reads back equal."""
    options = BuildOptions(
        precision=precision,
        sparse=sparse,
        workspace=workspace,
        optimization_level=level,
        time_limit=limit,
        shapes=shapes,
    )
    assert options_from_json(json.loads(json.dumps(options_to_json(options)))) == options
