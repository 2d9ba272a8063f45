#!/usr/bin/env python3
"""Makes the shipped scenes in scenes/: the humanoid, warehouse, corridor and bench, with their textures.

    python scripts/make_scenes.py             writes them
    python scripts/make_scenes.py --check     says whether the committed ones are what would be written

The same bytes come out every time.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "exts" / "saccade"))


def textures_of(scene: Path) -> set[str]:
    """Returns the names of the textures that a scene refers to."""
    return set(re.findall(r"@\./textures/([^@]+)@", scene.read_text()))


def differences(fresh: Path, committed: Path) -> list[str]:
    """Returns the files that differ between two folders of scenes, pictures compared by their pixels."""
    import numpy as np
    from PIL import Image

    names = {str(p.relative_to(folder)) for folder in (fresh, committed) for p in folder.rglob("*.*") if p.is_file()}
    found = []
    for name in sorted(names):
        a, b = fresh / name, committed / name
        if not (a.exists() and b.exists()):
            found.append(f"{name}: only in {'a fresh make' if a.exists() else 'the committed scenes'}")
        elif name.endswith(".png"):
            # Another zlib may pack the same pixels otherwise.
            if not np.array_equal(np.asarray(Image.open(a)), np.asarray(Image.open(b))):
                found.append(f"{name}: other pixels")
        elif a.read_bytes() != b.read_bytes():
            found.append(f"{name}: other contents")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "scenes", help="folder of the scenes")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    options = parser.parse_args()
    from saccade.scenes.make import make_scenes

    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        scenes = make_scenes(fresh)
        found = differences(fresh, options.out) if options.out.is_dir() else ["no scenes there"]
        if options.check:
            print("\n".join(found) or f"{options.out}: as a fresh make")
            return 1 if found else 0
        textures = options.out / "textures"
        textures.mkdir(parents=True, exist_ok=True)
        wanted = set().union(*(textures_of(scene) for scene in scenes))
        for name in sorted(wanted):
            shutil.copyfile(fresh / "textures" / name, textures / name)
        for scene in scenes:
            shutil.copyfile(scene, options.out / scene.name)
        for stale in textures.glob("*.png"):
            if stale.name not in wanted:
                stale.unlink()
    for scene in scenes:
        print(f"{options.out / scene.name}: {(options.out / scene.name).stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
