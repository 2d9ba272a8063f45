"""Facts about the host."""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from saccade.telemetry.host import cpu_model, host_facts, package_versions, peak_rss_mb, rss_mb


def test_versions_are_those_installed():
    found = package_versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["saccade"]


def test_host_facts_are_plain_and_give_the_reason_for_a_missing_gpu():
    facts = host_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"] == cpu_model() and facts["cpu"]
    assert 1 <= facts["cores"] <= facts["cores_total"] == os.cpu_count()
    assert facts["memory_mb"] > 100
    assert facts["gpu"] is not None or facts["gpu_reason"]


def test_memory_peak_follows_what_is_used():
    before = peak_rss_mb()
    block = np.ones(int(rss_mb() + 64) * 2**17)  # 8 bytes each: more than everything so far
    assert block.sum() > 0
    assert peak_rss_mb() >= before + 32
    assert rss_mb() <= peak_rss_mb() + 1
