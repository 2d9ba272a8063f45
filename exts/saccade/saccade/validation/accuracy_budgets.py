"""Which accuracy budgets a run may be judged by: a network is held to a renderer that it was trained for."""

from __future__ import annotations

import json
from pathlib import Path

from saccade.config import Budgets
from saccade.configuration import LoadedConfiguration

ACCURACY = ("camera_miou", "lidar_miou", "hazard_recall", "hazard_auroc", "clearance_error_m")
"""Budgets that depend on what the sensors' pictures look like."""

RENDERER = "isaac"
"""What a card lists under ``renderers`` when its network was trained on Isaac Sim's pictures, too."""


def judged_budgets(loaded: LoadedConfiguration) -> tuple[Budgets, str | None]:
    """Returns the budgets to judge by, and why accuracy is not among them.

    Pictures of another renderer than the one that a network learned from make it look worse than it is, or better:
    in Isaac Sim accuracy is reported, and judged only where every network's card names that renderer.

    Args:
        loaded: The configuration.
    """
    config = loaded.config
    limits = [name for name in ACCURACY if getattr(config.budgets, name) is not None]
    if config.simulator.backend != "isaac" or not limits:
        return config.budgets, None
    strangers = [name for name in config.networks if RENDERER not in _renderers(loaded.model_path(name))]
    if not strangers:
        return config.budgets, None
    reason = (
        f"{', '.join(limits)}: reported, not judged: the card of {', '.join(strangers)} does not name Isaac Sim's "
        f"renderer (renderers: [{RENDERER}])"
    )
    return config.budgets.model_copy(update=dict.fromkeys(limits)), reason


def _renderers(model: Path) -> list[str]:
    """Returns what the card beside a network lists; nothing where there is none that can be read."""
    try:
        card = json.loads(model.with_suffix("").with_suffix(".card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = card.get("renderers") if isinstance(card, dict) else None
    return [str(name) for name in found] if isinstance(found, list) else []
