"""What a run shows: a log is spared the same line over and over."""

import io

from rich.console import Console

from saccade.config import RunConfig
from saccade.validation.progress import RunProgress

CONFIG = RunConfig.model_validate(
    {"scene": "s", "sensors": {"eye": {"kind": "camera", "prim": "c", "width": 16, "height": 16}}}
)


def said(texts):
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    with RunProgress(console, CONFIG) as progress:
        for text in texts:
            progress.say(text)
    return console.file.getvalue().splitlines()


def test_a_log_has_a_count_of_seconds_once():
    """Lines that differ only in a number come once within ten seconds; another line always comes."""
    assert said(["m.onnx: 1 s: building", "m.onnx: 2 s: building", "m.onnx: 3 s: building", "judging"]) == [
        "m.onnx: 1 s: building",
        "judging",
    ]


def test_the_same_line_comes_again_after_another():
    """What happens twice is said twice."""
    assert said(["loading", "building 1 s", "loading"]) == ["loading", "building 1 s", "loading"]
