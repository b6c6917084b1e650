"""Device profiles: what a device runs and can spare, and how it is reached; errors name file, line and key."""

from exporter.profiles.loader import load, shipped
from exporter.profiles.schema import Connection, DeviceProfile, Link, json_schema, known_options

__all__ = ["Connection", "DeviceProfile", "Link", "json_schema", "known_options", "load", "shipped"]
