"""The base of what files that people write may say; it imports pydantic, which the command line does at no start."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of such a file: no key but its own, no value of another type, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
