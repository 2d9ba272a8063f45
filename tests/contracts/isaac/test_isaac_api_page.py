"""docs/isaac_api.md is current, and the doubles know every name that the adapters were seen to call."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")

from tests.contracts.isaac.doubles import VERSIONS, install
from tests.simulators.isaac_room import isaac_folder, waiting

REPOSITORY = Path(__file__).parents[3]
PAGE = REPOSITORY / "docs" / "isaac_api.md"


def test_the_page_is_current():
    script = REPOSITORY / "scripts" / "write_isaac_api_table.py"
    ended = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return isaac_folder(tmp_path_factory.mktemp("room"))


@pytest.mark.parametrize(
    "version", [v if v in ("5.1", "6.0") else pytest.param(v, marks=pytest.mark.slow) for v in VERSIONS]
)
def test_what_a_run_calls_is_on_the_page(room, version):
    from saccade.configuration import load_configuration

    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    column = 2 + VERSIONS.index(version)
    named = {}
    for row in rows:
        cells = [cell.strip().strip("`") for cell in row.strip("|").split("|")]
        named[f"{cells[0]}.{cells[1]}"] = cells[column]
    with install(version, waiting()) as double:
        from saccade.simulators.isaac import IsaacSimulator

        loaded = load_configuration(room / "run.yaml")
        simulator = IsaacSimulator(loaded.config, device="cpu")
        simulator.open(loaded.scene_path())
        simulator.step(None)
        simulator.facts()
        simulator.close()
        called = {name.removesuffix(".__init__") for name in double.called}
    lost = sorted(name for name in called if named.get(name, "-") == "-")
    assert not lost, f"called and not on the page for {version}: {lost}"
