"""Opens a report in headless Chromium and holds what it shows against run.json."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.report_runs import make_run
from tests.reporting.test_html import HOSTILE, Page, value_at

from saccade.reporting.html import write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"),
]


def browse(page: Path, profile: Path, *arguments: str) -> tuple[str, str]:
    """What Chromium writes about a page: its output and what the page's console said."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("performance", ["graph", "cpu", None])
def test_the_page_in_the_browser_shows_the_figures_of_run_json(tmp_path: Path, performance: str | None) -> None:
    run = make_run(tmp_path / "run", ticks=400, warmup=15, contacts=1, performance=performance)
    report = write_report(tmp_path / "run")
    dom, console = browse(report, tmp_path / "profile", "--dump-dom")
    assert console == ""
    (tmp_path / "dom.html").write_text(dom)
    page = Page(tmp_path / "dom.html")
    fields = page.fields()
    assert len(fields) > 100
    for field, value in fields.items():
        assert value == value_at(run, field), field
    assert any(field.startswith("residency.graphs.1.nodes.") for field in fields) is (performance == "graph")
    assert any(field.startswith("gpu.process_cpu_percent.") for field in fields) is (performance is not None)
    # The script ran: it takes over the hover texts and opens the filter.
    assert any("data-tip" in attributes for _, attributes in page.elements)
    assert [a for tag, a in page.elements if tag == "p" and a.get("class") == "filter" and "hidden" not in a]


def test_hostile_names_stay_text_in_the_browser(tmp_path: Path) -> None:
    make_run(tmp_path / "run", ticks=80, name=HOSTILE, sensors=((HOSTILE, "camera"), ("b", "lidar")), samples=1)
    dom, console = browse(write_report(tmp_path / "run"), tmp_path / "profile", "--dump-dom")
    assert console == ""
    assert dom.count("<script") == 1
    assert "<img src=x" not in dom.lower().replace('"', "")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_drawn_and_nothing_sticks_out(tmp_path: Path, width: int) -> None:
    make_run(tmp_path / "run", ticks=80, samples=1, performance="graph")
    report = write_report(tmp_path / "run")
    picture = tmp_path / "page.png"
    browse(report, tmp_path / "profile", f"--window-size={width},9000", "--hide-scrollbars", f"--screenshot={picture}")
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (width, 9000)
        edge = image.convert("RGB").crop((width - 8, 0, width, 9000)).getcolors(64)
        colours = image.convert("RGB").getcolors(1 << 24)
    # The margin is the page's own colour from top to bottom; the page itself has far more to show.
    assert edge is not None
    assert len(edge) == 1
    assert colours is not None
    assert len(colours) > 100
