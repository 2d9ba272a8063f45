"""What all tests share: Warp is set up before any of them runs, so that compiled kernels are kept and reused."""

from __future__ import annotations

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepares Warp after collection: its settings only count before its first use, and Newton uses it on import."""
    if not session.items:
        return
    try:
        import warp  # noqa: F401
    except ImportError:
        return
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
