"""report.html: one self-contained page made from the record of a run alone."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from saccade.errors import RecordError
from saccade.reporting import figures, performance, wording
from saccade.reporting.samples import read_samples
from saccade.telemetry.record import Record, read_frames
from saccade.telemetry.recorder import FRAMES_FILE, write_atomic

REPORT_FILE = "report.html"
RUN_FILE = "run.json"

VERDICTS = {"pass": "PASS", "fail": "FAIL", "invalid": "INVALID"}

CARDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Latency p50", ("latency_ms", "p50"), "ms"),
    ("Latency p95", ("latency_ms", "p95"), "ms"),
    ("Latency p99", ("latency_ms", "p99"), "ms"),
    ("Slowest decision", ("latency_ms", "max"), "ms"),
    ("Inference p95", ("inference_ms", "p95"), "ms"),
    ("Deadline misses", ("deadline_miss_rate",), "share"),
    ("Real-time factor", ("realtime_factor",), "×"),
    ("Dropped samples", ("dropped",), ""),
    ("Contacts", ("contacts",), ""),
    ("Camera mIoU", ("accuracy", "camera_miou"), "score"),
    ("LiDAR mIoU", ("accuracy", "lidar_miou"), "score"),
    ("Hazard recall", ("accuracy", "hazard", "recall"), "share"),
    ("Hazard AUROC", ("accuracy", "hazard_auroc"), "score"),
    ("Clearance error", ("accuracy", "clearance_error_m"), "m"),
    ("Distance walked", ("distance_m",), "m"),
)
"""The key figures: text, place in ``run.json``, unit."""


def write_report(run_directory: Path | str) -> Path:
    """Makes ``report.html`` of a run from its record alone, whole or not at all.

    Args:
        run_directory: Folder with ``run.json``, ``frames.jsonl`` and, where there are some, ``samples/*.npz``.

    Returns:
        The page.

    Raises:
        RecordError: There is no run in that folder, it cannot be read, or the page cannot be written.
    """
    directory = Path(run_directory)
    run = _read_run(directory)
    problems: list[str] = []
    record = _read_record(directory, problems)
    target = directory / REPORT_FILE
    write_atomic(target, render(run, record, directory, problems))
    return target


def render(run: Mapping[str, Any], record: Record, directory: Path, problems: list[str]) -> str:
    """Returns the page of one run.

    Args:
        run: Content of ``run.json``.
        record: Content of ``frames.jsonl``.
        directory: The run's folder, for its samples and its name.
        problems: What was already found wrong, in sentences.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    samples, sample_problems = read_samples(directory)
    environment = Environment(
        loader=PackageLoader("saccade.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["figure"] = figure_of(run)
    environment.filters["number"] = wording.number
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html.j2")
    return template.render(
        run=run,
        header=record.header,
        style=_asset("report.css"),
        script=script,
        # Only this very script may run: a name that slipped through escaping could still do nothing.
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
        name=str(run.get("name") or directory.resolve().name),
        verdict=_verdict(run, record, [*problems, *record.problems]),
        facts=_facts(run),
        cards=[{"text": text, "path": path, "unit": unit} for text, path, unit in CARDS],
        budgets=_budgets(run),
        latency=_latency_rows(run),
        charts=figures.charts(run, record),
        performance=performance.performance(run),
        accuracy=figures.accuracy(run, record),
        pictures=figures.pictures(run, samples),
        walk=figures.walk(run, record, samples),
        sample_problems=sample_problems,
        configuration=_configuration(run),
        provenance=_provenance(run),
        command=reproduce_command(run),
        rebuild=f"saccade report {shlex.quote(str(directory))}",
        generated=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def figure_of(run: Mapping[str, Any]) -> Callable[..., Any]:
    r"""Returns the function with which the template shows a figure of ``run.json``.

    Each stands in an element whose ``data-field`` names its place, the parts joined by dots (a dot inside a part is
    written ``\\.``), and whose ``data-value`` is its full value as JSON, so that a test can hold them together.
    """
    from markupsafe import Markup

    def figure(*parts: str | tuple[str, ...], unit: str = "", interval: bool = False) -> Any:
        path = tuple(name for part in parts for name in ((part,) if isinstance(part, str) else part))
        found = lookup(run, path)
        value = found.get("value") if isinstance(found, Mapping) else found
        text, suffix = performance.split(value, unit)
        title = ""
        if value is None:
            title = str(found.get("reason") or "") if isinstance(found, Mapping) else ""
            text, suffix = "–", ""
        place = ".".join(name.replace(".", "\\.") for name in path)
        shown = Markup('<data class="figure-value" data-field="{}" data-value="{}" value="{}" title="{}">{}').format(
            place, json.dumps(value), "" if value is None else value, title, text
        )
        if suffix:
            shown += Markup('<span class="unit">{}</span>').format(suffix)
        shown += Markup("</data>")
        if interval:
            shown += Markup('<span class="interval-text">{}</span>').format(_note(found, unit))
        return shown

    return figure


def lookup(run: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the value at ``path`` (in a list, a number), or ``None`` where any part of the way is missing."""
    found: Any = run
    for part in path:
        if isinstance(found, list):
            found = found[int(part)] if part.isdecimal() and int(part) < len(found) else None
        elif isinstance(found, Mapping):
            found = found.get(part)
        else:
            return None
    return found


def reproduce_command(run: Mapping[str, Any]) -> str:
    """Returns the command line that repeats the run, from the sources of its configuration."""
    sources, configuration = run.get("sources") or {}, run.get("configuration") or {}
    words = ["saccade", "validate"]
    files = list(dict.fromkeys(str(source)[5:] for source in sources.values() if str(source).startswith("file ")))
    # A configuration built on a base names the base's fields too: its own file is the one read last.
    if files:
        words.append(files[-1])
    for name, origin in sources.items():
        source = str(origin)
        if not source.startswith("--"):
            continue
        found = lookup(configuration, tuple(name.split(".")))
        written = json.dumps(found) if isinstance(found, (dict, list, bool)) or found is None else str(found)
        if source.startswith("--set"):
            words += ["--set", f"{name}={written}"]
        else:
            words += [source.split(maxsplit=1)[0], written]
    return shlex.join(words)


def _read_run(directory: Path) -> dict[str, Any]:
    path = directory / RUN_FILE
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{directory}: no {RUN_FILE} there; give the folder of a run, such as runs/latest") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read as JSON ({error}); the run's record is damaged") from error
    if not isinstance(run, dict):
        raise RecordError(f"{path}: holds no JSON object; the run's record is damaged")
    return run


def _read_record(directory: Path, problems: list[str]) -> Record:
    try:
        return read_frames(directory)
    except RecordError as error:
        problems.append(f"{FRAMES_FILE} cannot be used, so that nothing can be drawn from it: {error}")
        return Record(header={})


def _asset(name: str) -> str:
    return (resources.files("saccade.reporting") / "templates" / name).read_text(encoding="utf-8")


def _note(found: Any, unit: str) -> str:
    """Returns what stands below a figure: its interval, its count, or why it has no value."""
    if not isinstance(found, Mapping):
        return ""
    if found.get("value") is None:
        return str(found.get("reason") or "no sample")
    parts = []
    if found.get("count") is not None:
        parts.append(f"{found['count']} of {found.get('n')}")
    if found.get("low") is not None and found.get("high") is not None:
        parts.append(f"95 %: {wording.span(found['low'], found['high'], unit)}")
    return " · ".join(parts)


def _verdict(run: Mapping[str, Any], record: Record, problems: list[str]) -> dict[str, Any]:
    claimed = run.get("verdict")
    reasons = [_sentence(reason) for reason in run.get("reasons") or []]
    word = claimed if claimed in VERDICTS else "invalid"
    if run.get("state") != "finished":
        word = "invalid"
        reasons.insert(
            0,
            f"The run did not finish: run.json still says “{run.get('state') or 'nothing'}”, so that its summary, "
            f"budgets and verdict are missing. Drawn below is what its record holds: {len(record.frames)} frames.",
        )
    known = " ".join(reasons).lower()
    extra = [_sentence(problem) for problem in problems if problem.lower().rstrip(".") not in known]
    if problems and word != "invalid":
        word = "invalid"
        extra.insert(0, f"run.json says {VERDICTS.get(str(claimed), 'nothing')}, but the record does not bear it out.")
    reasons += extra
    budgets = run.get("budgets") or []
    counts = [sum(budget.get("passed") is state for budget in budgets) for state in (True, False, None)]
    return {
        "kind": word,
        "word": VERDICTS[word],
        "claimed": claimed,
        "summary": _summary(word, run, counts),
        "reasons": reasons,
        "counts": counts,
    }


def _summary(word: str, run: Mapping[str, Any], counts: list[int]) -> str:
    passed, failed, unjudged = counts
    total = sum(counts)
    frames = run.get("frames")
    over = f" over {frames} judged decision{'s' if frames != 1 else ''}" if isinstance(frames, int) else ""
    if word == "invalid":
        return "This run cannot be judged."
    if word == "fail":
        return f"{failed} of {total} budgets {'was' if failed == 1 else 'were'} missed{over}."
    if not total:
        return f"Valid{over}; no budget was set."
    rest = f"; {unjudged} could not be judged" if unjudged else ""
    return f"{'All' if not unjudged else passed} {total if not unjudged else f'of {total}'} budgets met{over}{rest}."


def _sentence(text: Any) -> str:
    words = str(text).strip()
    # A name of the configuration or of a percentile keeps its case.
    if words.split(" ", 1)[0].isalpha():
        words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    configuration, host = run.get("configuration") or {}, run.get("host") or {}
    found = [("Scene", configuration.get("scene")), ("Device", run.get("device"))]
    simulator = run.get("simulator") or {}
    found.append(("Simulator", simulator.get("name") or lookup(configuration, ("simulator", "backend"))))
    cpu = host.get("cpu")
    found.append(("Host", cpu if isinstance(cpu, str) else lookup(host, ("cpu", "name"))))
    found += [("Seed", run.get("seed")), ("Started", wording.moment(run.get("started")))]
    if isinstance(run.get("wall_s"), (int, float)):
        found.append(("Judged for", f"{wording.number(run['wall_s'])} s"))
    return [(name, str(value)) for name, value in found if value is not None]


def _budgets(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for budget in run.get("budgets") or []:
        unit = wording.budget_unit(budget)
        passed, below = budget.get("passed"), budget.get("comparison") == "<="
        rows.append(
            {
                **budget,
                "title": str(budget.get("description") or budget["name"]),
                "why": _why(budget),
                "shown": wording.joined(budget.get("value"), unit),
                "interval": wording.span(budget.get("low"), budget.get("high"), unit),
                "bound": f"{'≤' if below else '≥'} {wording.joined(budget.get('limit'), unit)}",
                "outcome": "not judged" if passed is None else "passed" if passed else "failed",
                "bullet": figures.markup(figures.plots.bullet(budget)),
            }
        )
    order = {"failed": 0, "not judged": 1, "passed": 2}
    return sorted(rows, key=lambda row: order[row["outcome"]])


def _why(budget: Mapping[str, Any]) -> str:
    """Returns why a budget was not met or not judged, or that it was met by less than its interval."""
    low, high, limit = budget.get("low"), budget.get("high"), budget.get("limit")
    close = None not in (low, high, limit) and low < limit < high  # type: ignore[operator]
    if budget.get("passed") is True and not close:
        return ""
    return _sentence(budget["reason"]) if budget.get("reason") else ""


def _latency_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of the percentile table: place in ``run.json``, text, and whether a group starts."""
    rows: list[dict[str, Any]] = [
        {"path": (name,), "text": text, "group": "", "statistics": run.get(name)}
        for name, text in (("latency_ms", "latency, state to decision"), ("inference_ms", "inference, summed"))
    ]
    rows += _stage_rows(("stages_ms",), run.get("stages_ms"), "Stage, all sensors")
    for sensor, entry in (run.get("sensors") or {}).items():
        group = f"Sensor {sensor}"
        for name, text in (("latency_ms", "latency"), ("inference_ms", "inference")):
            path = ("sensors", sensor, name)
            rows.append({"path": path, "text": text, "group": group, "statistics": entry.get(name)})
        rows += _stage_rows(("sensors", sensor, "stages_ms"), entry.get("stages_ms"), group)
    rows = [row for row in rows if isinstance(row["statistics"], Mapping) and row["statistics"].get("n")]
    for row in rows:
        row["spans"] = {name: _span(row["statistics"].get(name)) for name in ("p50", "p95", "p99")}
    return rows


def _span(entry: Any) -> tuple[str, bool]:
    """Returns a percentile's interval, or why it has no value, and whether it has one."""
    entry = entry if isinstance(entry, Mapping) else {}
    if entry.get("value") is None:
        return str(entry.get("reason") or ""), False
    return wording.span(entry.get("low"), entry.get("high"), ""), True


def _stage_rows(path: tuple[str, ...], stages: Any, group: str) -> list[dict[str, Any]]:
    names = figures.plots.STAGE_NAMES
    return [
        {"path": (*path, name), "text": names.get(name, name), "group": group, "statistics": statistics}
        for name, statistics in (stages or {}).items()
    ]


def _configuration(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    sources = run.get("sources") or {}
    rows = []
    for path, value in _leaves(run.get("configuration") or {}):
        name = ".".join(path)
        source = str(next((sources[key] for key in _parents(name) if key in sources), ""))
        rows.append(
            {
                "name": name,
                "value": json.dumps(value, ensure_ascii=False),
                "source": source,
                "changed": source not in ("", "default"),
            }
        )
    return rows


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, below in value.items() for leaf in _leaves(below, (*path, str(key)))]
    return [(path, value)]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _provenance(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = []
    simulator = {key: value for key, value in (run.get("simulator") or {}).items() if key != "floor_plan"}
    for text, value in (
        ("Versions", run.get("versions")),
        ("Host", run.get("host")),
        ("Hashes (SHA-256)", run.get("hashes")),
        ("Engines", run.get("engine")),
        ("Simulator", simulator),
        ("Recorder", run.get("recorder")),
    ):
        if isinstance(value, Mapping) and value:
            rows = [(" ".join(path), item) for path, item in _leaves(value)]
            groups.append((text, [(name, _plain(item)) for name, item in rows]))
        elif value:
            groups.append((text, [("", _plain(value))]))
    return groups


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return wording.number(value) if math.isfinite(value) else "–"
    if isinstance(value, list) and all(not isinstance(item, (dict, list)) for item in value):
        return ", ".join(str(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 600 else f"{text[:600]} … ({len(text)} characters)"
