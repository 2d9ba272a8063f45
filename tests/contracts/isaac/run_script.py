"""Runs a script on the doubles in a process of its own, as Isaac Sim's ``python.sh`` would: see test_isaac_script.py.

The process really ends inside ``close()``, with the status that the version gives it.
"""

import json
import os
import runpy
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def main() -> None:
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "exts" / "saccade")]
    from tests.contracts.isaac.doubles import Behaviour, install

    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    version, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    without = tuple(filter(None, os.environ.get("DOUBLE_WITHOUT", "").split(",")))

    def end(status: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    with install(version, Behaviour(ends_process=end), without=without) as double:
        note = os.environ.get("DOUBLE_LAUNCH")
        if note:

            def written(event=None):
                Path(note).write_text(json.dumps(double.world.launch), encoding="utf-8")

            double.world.observers.append(("stage opened", 0, written))
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
