"""The base of what a device profile may say; it imports pydantic, which the command line does not when it starts."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a profile: no key but its own, no value of another type, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
