"""What every section of the configuration is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration; an unknown field is an error, not a typo that nobody sees."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
