"""What a run writes before its first frame: the record's header, and what run.json says of configuration and host."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.telemetry.host import host_facts, package_versions


def header_of(config: RunConfig, name: str) -> dict[str, Any]:
    """Returns the first line of the record of the run ``name``."""
    return {
        "kind": "header",
        "schema": 1,
        "run": name,
        "created": now_text(),
        "sensors": {
            name: {"kind": s.kind, "rate": s.rate, **({"range_max": s.range_max} if s.kind == "lidar" else {})}
            for name, s in config.sensors.items()
        },
        "networks": {
            name: {
                "sensor": next(iter(n.inputs.values())).sensors[0],
                "classes": n.decoder.classes,
                "hazard_threshold": n.decoder.hazard_threshold,
            }
            for name, n in config.networks.items()
        },
        "deadline_ms": config.run.deadline_ms,
        "frames_expected": config.run.frames,
        "warmup": config.run.warmup,
    }


def run_document(loaded: LoadedConfiguration, directory: Path) -> dict[str, Any]:
    """Returns what ``run.json`` says from the start: configuration with its sources, versions, host."""
    return {
        "schema": 1,
        "name": directory.name,
        "started": now_text(),
        "configuration": loaded.config.model_dump(mode="json"),
        "configuration_file": str(loaded.path),
        "sources": loaded.sources,
        "seed": loaded.config.run.seed,
        "versions": package_versions(),
        "host": host_facts(),
    }


def now_text() -> str:
    """Returns the time on the wall with its offset, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(timespec="milliseconds")


def json_text(document: dict[str, Any]) -> str:
    """Returns a document as it is written."""
    import json

    return json.dumps(document, indent=1, default=str)
