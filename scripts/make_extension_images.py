"""Makes the pictures of the extension: its icon, and the window as the headless preview draws it.

python scripts/make_extension_images.py            both, from a run in the corridor on the embedded simulator
python scripts/make_extension_images.py --icon     only the icon
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "exts" / "saccade" / "data"
PICTURE = ROOT / "docs" / "images" / "window_preview.png"
ICON_SIZE, OVERSAMPLING = 256, 4
SHOWN_AT = 110
"""Decisions after which the window is drawn."""


def icon() -> Image.Image:
    """Returns the icon: an eye, and the jump from one point to the next."""
    size = ICON_SIZE * OVERSAMPLING
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    unit = size / 64
    draw.rounded_rectangle((2 * unit, 2 * unit, 62 * unit, 62 * unit), 12 * unit, fill=(30, 34, 40, 255))
    # the eye: two arcs that meet in its corners
    upper = [(x, 36 - 15 * math.cos((x - 32) / 24 * math.pi / 2)) for x in range(8, 57)]
    lower = [(x, 36 + 13 * math.cos((x - 32) / 24 * math.pi / 2)) for x in range(56, 7, -1)]
    outline = [(x * unit, y * unit) for x, y in upper + lower]
    draw.polygon(outline, fill=(226, 232, 236, 255))
    draw.line([*outline, *outline[:2]], fill=(118, 185, 0, 255), width=round(2.4 * unit), joint="curve")
    draw.ellipse((23 * unit, 26 * unit, 43 * unit, 46 * unit), fill=(36, 120, 160, 255))
    draw.ellipse((28.5 * unit, 31.5 * unit, 37.5 * unit, 40.5 * unit), fill=(16, 20, 26, 255))
    draw.ellipse((35 * unit, 29.5 * unit, 39 * unit, 33.5 * unit), fill=(255, 255, 255, 255))
    # the jump: from fixation to fixation
    hops = [(10, 17), (22, 10), (36, 14), (52, 9)]
    draw.line([(x * unit, y * unit) for x, y in hops], fill=(240, 165, 60, 255), width=round(1.6 * unit))
    for x, y in hops:
        draw.ellipse(((x - 2) * unit, (y - 2) * unit, (x + 2) * unit, (y + 2) * unit), fill=(240, 165, 60, 255))
    return image.resize((ICON_SIZE, ICON_SIZE), Image.Resampling.LANCZOS)


def window_preview() -> Image.Image:
    """Returns the window in the middle of a real run: corridor, embedded simulator, shipped networks."""
    from saccade.panel.model import Panel
    from saccade.panel.picture import picture

    with tempfile.TemporaryDirectory() as folder:
        panel = Panel(out=Path(folder) / "runs", configuration="corridor")
        try:
            panel.settle()
            panel.preview(True)
            panel.start()
            print("running the corridor for some decisions: half a minute")
            while panel.state in ("building", "running") and panel.view().decisions < SHOWN_AT:
                panel.update()
                time.sleep(0.05)
            if panel.state != "running":
                sys.exit("the run ended early: " + "; ".join(line.text for line in panel.view().log[-2:]))
            panel.log.add("info", f"{SHOWN_AT} decisions: this picture was drawn, and the run stopped after it")
            view, previews = panel.view(), {name: shown.array.numpy() for name, shown in panel.previews.items()}
            return picture(view, previews)
        finally:
            panel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icon", action="store_true", help="only the icon")
    arguments = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    icon().save(DATA / "icon.png", optimize=True)
    print(f"wrote {DATA / 'icon.png'}")
    if arguments.icon:
        return
    drawn = window_preview()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(PICTURE, optimize=True)
    drawn.resize((drawn.width * 2 // 3, drawn.height * 2 // 3), Image.Resampling.LANCZOS).save(
        DATA / "preview.png", optimize=True
    )
    print(f"wrote {PICTURE} and {DATA / 'preview.png'}")


if __name__ == "__main__":
    main()
