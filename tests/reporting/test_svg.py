"""Axes of the report's plots."""

from __future__ import annotations

import pytest

from saccade.reporting.svg import log_ticks


@pytest.mark.parametrize(("low", "high"), [(0.22, 0.37), (2800.0, 4600.0), (0.4, 1.1), (0.9, 70.0), (1e-3, 1e5)])
def test_a_logarithmic_axis_has_numbers_to_read(low, high):
    ticks = log_ticks(low, high)
    assert len(ticks) >= 3 and all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)
    assert ticks == sorted(set(ticks))
