"""Model cards: what a network was trained on and how well it does on layouts that it never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saccade.models.export import atomic_path

GOALS: dict[str, tuple[tuple[str, str, str, float], ...]] = {
    "camera": (
        ("mIoU", "miou", ">=", 0.75),
        ("hazard AUROC", "hazard.auroc", ">=", 0.95),
    ),
    "lidar": (
        ("label mIoU", "miou", ">=", 0.85),
        ("clearance error, median [m]", "clearance.median_m", "<=", 0.15),
    ),
}
"""What the shipped networks are held to on held-out layouts: title, dotted field of the scores, comparison, limit."""


def value_at(scores: dict[str, Any], path: str) -> Any:
    """Returns the value at a dotted path, ``None`` where it is missing."""
    value: Any = scores
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def goals_met(kind: str, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns each goal of a network with its value and whether it is met."""
    rows = []
    for title, path, comparison, limit in GOALS[kind]:
        value = value_at(scores, path)
        met = value is not None and (value >= limit if comparison == ">=" else value <= limit)
        rows.append({"title": title, "value": value, "comparison": comparison, "limit": limit, "met": met})
    return rows


def write_card(card: dict[str, Any], folder: Path) -> list[Path]:
    """Writes ``<kind>.card.json``, ``<kind>.card.md`` and, where matplotlib is there, ``<kind>.card.svg``."""
    kind = card["kind"]
    drawing = folder / f"{kind}.card.svg"
    written = [folder / f"{kind}.card.json", folder / f"{kind}.card.md"]
    if draw_curves(card, drawing):
        written.append(drawing)
    with atomic_path(written[0]) as path:
        path.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_path(written[1]) as path:
        path.write_text(
            markdown_from_card(card, drawing=drawing.name if drawing in written else None), encoding="utf-8"
        )
    return written


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def markdown_from_card(card: dict[str, Any], *, drawing: str | None = None) -> str:
    """Returns the readable form of a card."""
    kind, scores, data, network, training = (card[k] for k in ("kind", "scores", "data", "network", "training"))
    test = scores["test"]
    lines = [f"# {kind}.onnx", "", card["summary"], ""]
    if card.get("note"):
        lines += [f"> {card['note']}", ""]
    lines += [
        "## Scores on held-out layouts",
        "",
        f"{test['samples']} samples from {data['test']['scenes']} layouts that were used neither for training nor "
        f"for choosing "
        "anything, with the sensor noise named below.",
        "",
        "| score | value | goal | met |",
        "|---|---|---|---|",
    ]
    for goal in card["goals"]:
        sign = "≥" if goal["comparison"] == ">=" else "≤"
        lines.append(
            f"| {goal['title']} | {_number(goal['value'])} | {sign} {goal['limit']:g} | "
            f"{'yes' if goal['met'] else 'no'} |"
        )
    lines += ["", "| class | IoU | share of the truth |", "|---|---|---|"]
    for name, value in test["iou"].items():
        lines.append(f"| {name} | {_number(value)} | {_number(test['share'][name], 4)} |")
    if "hazard" in test:
        h = test["hazard"]
        lines += [
            "",
            f"Hazard threshold {h['threshold']:g} (chosen on the validation layouts for a recall of at least 0.97): "
            f"recall "
            f"{_number(h['recall'])}, precision {_number(h['precision'])}; {h['tp']} found, {h['fn']} missed, "
            f"{h['fp']} false "
            f"alarms, {h['tn']} rightly quiet, n = {h['n']}.",
        ]
    if "clearance" in test:
        c = test["clearance"]
        lines += [
            "",
            f"Clearance error: median {_number(c['median_m'])} m, mean {_number(c['mean_m'])} m, p95 "
            f"{_number(c['p95_m'])} m; within "
            f"5 m: median {_number(c['median_below_5_m'])} m, mean {_number(c['mean_below_5_m'])} m; "
            f"{100 * c['too_far']:.2f} % of the "
            f"sectors more than 0.5 m too far, n = {c['n']:,} sectors.",
        ]
    clean = scores.get("test_clean")
    if clean:
        lines += ["", f"Without sensor noise: mIoU {_number(clean['miou'])}."]
    lines += [
        "",
        "## Network",
        "",
        f"{network['description']} {network['parameters']:,} parameters, {network['multiply_adds'] / 1e6:.0f} "
        f"million multiply-adds "
        f"a frame. ONNX opset {network['opset']}.",
        "",
        "| tensor | shape | meaning |",
        "|---|---|---|",
        *(
            f"| `{t['name']}` ({t['role']}) | {' x '.join(str(n) for n in t['shape'])} | {t['meaning']} |"
            for t in network["tensors"]
        ),
        "",
        "## Data",
        "",
        f"Rendered by Saccade's embedded simulator ({data['renderer']}) from randomised layouts; data seed "
        f"{data['data_seed']}, "
        f"generator {data['generator']}.",
        "",
        "| part | layouts | scene seeds | samples | " + ("hazard share |" if kind == "camera" else "returns |"),
        "|---|---|---|---|---|",
    ]
    for part in ("train", "validation", "test"):
        row = data[part]
        extra = _number(row.get("hazard_share")) if kind == "camera" else _number(row.get("returns"))
        lines.append(
            f"| {part} | {row['scenes']} | {row['first_seed']} to {row['last_seed']} | {row['samples']} | {extra} |"
        )
    sensor = ", ".join(f"{key} {value}" for key, value in data["sensor"].items() if value is not None)
    noise = ", ".join(f"{key} {value:g}" for key, value in data["test_noise"].items())
    lines += [
        "",
        f"Sensor: {sensor}. Noise while scoring: {noise}.",
        "",
        "## Training",
        "",
        f"{training['epochs']} epochs of {training['optimizer']}, batch {training['batch']}, seed "
        f"{training['seed']}, on "
        f"{training['device']} in {training['minutes']:.1f} minutes"
        + (f" after {data['render_minutes']:.1f} minutes of rendering" if data.get("render_minutes") else "")
        + f"; PyTorch {training['torch']}. {training['augmentation']}",
        "",
    ]
    if drawing:
        lines += [f"![Loss and validation scores over the epochs]({drawing})", ""]
    lines += [
        "## Limits",
        "",
        "These networks know this renderer and this generator's things only: flat shading, few materials, one "
        "robot, one mounting "
        "height. Their scores say nothing about RTX images or real sensors; they exist so that the loop, its "
        "latency and its "
        "safety can be validated with real inference. Put your own ONNX file in their place for your own claims.",
        "",
    ]
    return "\n".join(lines)


def draw_curves(card: dict[str, Any], path: Path) -> bool:
    """Draws loss and validation scores over the epochs as SVG; returns False where matplotlib is missing."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return False
    curves = card["curves"]
    with rc_context({"svg.hashsalt": "saccade", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8.0, 2.8), layout="constrained")
        loss, score = figure.subplots(1, 2)
        loss.plot([row["epoch"] for row in curves["train"]], [row["loss"] for row in curves["train"]], color="#4477aa")
        loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
        colors = iter(("#228833", "#ee6677", "#ccbb44", "#66ccee"))
        rows = curves["validation"]
        for name in (key for key in (rows[0] if rows else {}) if key != "epoch"):
            score.plot(
                [r["epoch"] for r in rows],
                [r[name] for r in rows],
                "o-",
                ms=3,
                color=next(colors),
                label=name.replace("_", " "),
            )
        score.set(xlabel="epoch", ylabel="validation", ylim=(0, 1.02))
        if rows:
            score.legend(frameon=False, loc="lower right")
        for axes in (loss, score):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
    return True
