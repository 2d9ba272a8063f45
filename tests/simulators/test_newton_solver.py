"""The CPU solver starts without the kernels of mujoco_warp, and whoever wants them still gets them."""

import json
import subprocess
import sys

from saccade.simulators.newton_solver import _public_names


def in_fresh_process(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_opening_a_scene_on_the_cpu_imports_no_solver_kernels():
    """mujoco_warp's forward dynamics and collision kernels stay out of a run on the CPU."""
    loaded = in_fresh_process(
        "import json, sys\n"
        "from saccade.configuration import load_configuration\n"
        "from saccade.validation.run import simulator_for\n"
        "loaded = load_configuration('corridor', device='cpu')\n"
        "simulator = simulator_for(loaded)\n"
        "simulator.open(loaded.scene_path())\n"
        "simulator.step(None)\n"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('mujoco_warp'))))\n"
    )
    assert "mujoco_warp._src.io" in loaded
    assert not {"mujoco_warp._src.forward", "mujoco_warp._src.collision_driver"} & set(loaded)


def test_every_public_name_is_the_same_object():
    """The deferred package offers what the real one does, each name from the module that defines it."""
    answer = in_fresh_process(
        "import importlib, json, sys\n"
        "from saccade.kernels.setup import prepare_warp\n"
        "prepare_warp()\n"
        "from saccade.simulators.newton_solver import defer_mujoco_warp\n"
        "assert defer_mujoco_warp() and not defer_mujoco_warp()\n"
        "deferred = sys.modules['mujoco_warp']\n"
        "from mujoco_warp import step, put_model\n"
        "del sys.modules['mujoco_warp']\n"
        "real = importlib.import_module('mujoco_warp')\n"
        "assert real is not deferred and real.step is step and real.__version__ == deferred.__version__\n"
        "names = [name for name, value in vars(real).items() if not name.startswith('_')\n"
        "         and getattr(value, '__module__', '').startswith('mujoco_warp')]\n"
        "other = [name for name in names if getattr(deferred, name, None) is not getattr(real, name)]\n"
        "print(json.dumps([len(names), other, hasattr(deferred, 'no_such_name')]))\n"
    )
    assert answer[0] > 30
    assert answer[1:] == [[], False]


def test_a_package_that_does_more_than_bring_in_names_is_not_deferred():
    """Statements with an effect, or a star import, need the real import."""
    assert _public_names('"""Doc."""\nfrom mujoco_warp._src.a import b as c\n') == {"c": ("mujoco_warp._src.a", "b")}
    assert _public_names("from mujoco_warp._src.a import b\nregister(b)\n") == {}
    assert _public_names("from mujoco_warp._src.a import *\n") == {}
