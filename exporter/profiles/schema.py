"""The schema of a device profile; device_profiles/schema.json is the same in JSON Schema, for editors."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from exporter.core.errors import ProfileError
from exporter.core.precision import Body, Fold, Precision, Tables, named
from exporter.core.strict import Strict
from exporter.core.types import BudgetName, Options
from exporter.targets import TARGETS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What is handed to ssh and adb: no word of a profile can be an option of theirs, or several words.
_HOST = r"^[A-Za-z0-9_]([A-Za-z0-9._:%-]{0,252}[A-Za-z0-9_])?$"
_USER = r"^[A-Za-z_][A-Za-z0-9._-]{0,63}$"
_FOLDER = r"^[A-Za-z0-9._/][A-Za-z0-9._/ -]{0,255}$"
# What is printed: no word of a profile can steer a terminal.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
_SERIAL = r"^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$"

# The longest history and all items of the largest catalogue of a checkpoint: its MAX_SIZE and MAX_VOCABULARY.
MAX_HISTORY = 4096
MAX_CANDIDATES = 10_000_000 - 1
MAX_TOP = 5_000
_MAX_COUNT = 2**63 - 1
# From a byte in a second to a petabyte: what takes longer or less than that is no link, and its times no numbers.
_Speed = Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False)]

# The processors whose kernels the runtimes choose between; names of qemu's.
Cpu = (
    Literal["cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76", "cortex-a710"]
    | Literal["neoverse-n1", "neoverse-n2", "neoverse-v1"]
)


class _TargetOptionsBase(Strict):
    @field_validator("*", mode="before")
    @classmethod
    def _named_without_options(cls, value: Any) -> Any:
        return {} if value is None else value


_target_fields: dict[str, Any] = {name: (target.options_model() | None, None) for name, target in TARGETS.items()}
TargetOptions = create_model(
    "TargetOptions",
    __base__=_TargetOptionsBase,
    __doc__="Options of each target that the device runs; a target that is absent is not allowed on it.",
    __module__=__name__,
    **_target_fields,
)


class Budgets(Strict):
    """The most that one program may cost on the device.

    `flops_per_token` per click of history; `parameters` in weights; `size_bytes` of its files; `memory_bytes` of
    constants and planned activations, or of the measured peak where the file has no plan; `latency_us` in the median.
    """

    flops_per_token: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    parameters: int | None = Field(default=None, gt=0, le=_MAX_COUNT)
    size_bytes: int | None = Field(default=None, gt=0, le=_MAX_COUNT)
    memory_bytes: int | None = Field(default=None, gt=0, le=_MAX_COUNT)
    latency_us: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Link(Strict):
    """A network link of the device: bytes per second each way, the round trip in milliseconds, null if not known."""

    name: str = Field(min_length=1, max_length=64, pattern=_PRINTABLE)
    up_bytes_per_s: _Speed
    down_bytes_per_s: _Speed
    round_trip_ms: float | None = Field(default=None, ge=0, le=1e9, allow_inf_nan=False)


class HostOptions(Strict):
    """This machine; nothing to choose."""


class EmulatorOptions(Strict):
    """An emulated ARM64 processor on this machine."""

    cpu: Cpu = "cortex-a76"


class SshOptions(Strict):
    """A host that the system's ssh reaches; keys and everything else come from its own configuration.

    `config` is an ssh configuration file in place of the user's; `folder` is where things go there, below the user's
    home unless it begins with a slash.
    """

    host: str = Field(pattern=_HOST)
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = Field(default=None, pattern=_USER)
    config: str | None = Field(default=None, min_length=1, max_length=4096, pattern=_PRINTABLE)
    folder: str = Field(default=".cache/cocorr-export", pattern=_FOLDER)


class AdbOptions(Strict):
    """An Android device that adb knows; without a serial number it must be the only one.

    `folder` is where things go there; its files must be allowed to run.
    """

    serial: str | None = Field(default=None, pattern=_SERIAL)
    folder: str = Field(default="/data/local/tmp", pattern=_FOLDER)


class Certificate(Strict):
    """Files in PEM: a certificate for the address that is bound, with those that it rests on, and its key."""

    certificate: str = Field(min_length=1, max_length=4096, pattern=_PRINTABLE)
    key: str = Field(min_length=1, max_length=4096, pattern=_PRINTABLE)


def _address(value: str) -> str:
    if value not in ("loopback", "network"):
        try:
            ip_address(value)
        except ValueError:
            raise ValueError("give loopback, network, or an IP address of this machine") from None
    return value


def _https(value: Any) -> Any:
    """Return the part of the union that is meant: an error is of that one, and not of both."""
    if isinstance(value, dict):
        return Certificate.model_validate(value)
    if not isinstance(value, bool):
        raise ValueError("give true, false, or the files of a certificate: {certificate: FILE, key: FILE}")
    return value


class BrowserOptions(Strict):
    """A web page that runs the artifact, opened by Chromium on this machine or by a person on a phone.

    `open` is null for Chromium where there is one. `bind` is where the page can be had: `loopback` for this machine
    alone, `network` for the address by which it reaches its network, or an IP address. `https` is for phones: true
    for a certificate that nobody signed, of which browsers warn, or the files of one.
    """

    open: Literal["chromium", "phone"] | None = None
    bind: Annotated[str, Field(max_length=64), AfterValidator(_address)] = "loopback"
    https: Annotated[bool | Certificate, BeforeValidator(_https)] = False

    @model_validator(mode="after")
    def _by_phones(self) -> "BrowserOptions":
        if self.https is not False and self.open != "phone":
            raise ValueError("https is for phones: give open: phone beside it")
        return self


class Connection(Strict):
    """How the device is reached: exactly one of these."""

    host: HostOptions | None = None
    emulator: EmulatorOptions | None = None
    ssh: SshOptions | None = None
    adb: AdbOptions | None = None
    browser: BrowserOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise ValueError(f"give exactly one of {', '.join(cls.model_fields)}")
        return {name: {} if options is None else options for name, options in value.items()}

    def chosen(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the way and its options."""
        ((name, options),) = self.model_dump(exclude_none=True).items()
        return name, options


def _unique(links: tuple[Link, ...]) -> tuple[Link, ...]:
    names = [link.name for link in links]
    if len(set(names)) != len(names):
        raise ValueError("two links share a name")
    return links


class Mixed(Strict):
    """A scheme by its parts: what tables of embeddings are stored in, and what all else is."""

    tables: Tables
    body: Body


def _scheme(value: Any) -> Any:
    """Return the name of a scheme that is given by its parts."""
    if not isinstance(value, dict):
        return value
    parts = Mixed.model_validate(value)
    name = named(parts.tables, parts.body)
    if name not in get_args(Precision):
        raise ValueError(f"tables in {parts.tables} beside a body in {parts.body} are no scheme")
    return name


class DeviceProfile(Strict):
    """One device: `threads` is what latency is measured with, `targets` what may be lowered for it.

    A sub-network that exceeds a budget of `budgets` loses blocks until it fits. `history_length` and `candidates` are
    what the application gives one call; null stands for the checkpoint's own. `top` is how many of the best items a
    program gives that finds them itself; null stands for the program's own number. `precision` is the name of a scheme,
    or what its `tables` and its `body` are stored in. `fold` says by how much the artifact may grow for tables of
    computed rows, where that makes it faster; a budget of size or memory comes first.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = Field(default="", max_length=1000, pattern=_PRINTABLE)
    os: Literal["android", "ios", "linux", "macos"] | None = None
    abi: Literal["arm64", "x86_64"] | None = None
    precision: Annotated[Precision, BeforeValidator(_scheme)] = "fp32"
    fold: Fold = "same_size"
    history_length: int | None = Field(default=None, ge=1, le=MAX_HISTORY)
    candidates: int | None = Field(default=None, ge=1, le=MAX_CANDIDATES)
    top: int | None = Field(default=None, ge=1, le=MAX_TOP)
    threads: int = Field(default=1, ge=1, le=256)
    targets: TargetOptions  # type: ignore[valid-type]  # made above, out of the targets
    budgets: Budgets = Budgets()
    links: Annotated[tuple[Link, ...], Field(strict=False), AfterValidator(_unique)] = ()
    connection: Connection = Connection(host=HostOptions())

    def options_for(self, target: str) -> Mapping[str, Any]:
        """Return the options of `target`; raises ProfileError where the profile does not allow it."""
        options: BaseModel | None = getattr(self.targets, target)
        if options is None:
            known = ", ".join(self.allowed()) or "none"
            raise ProfileError(f"profile {self.name!r} does not allow target {target!r}; it allows: {known}")
        return options.model_dump()

    def stated_budgets(self) -> dict[BudgetName, float]:
        """Return the budgets that are stated, by name."""
        return cast("dict[BudgetName, float]", self.budgets.model_dump(exclude_none=True))

    def allowed(self) -> list[str]:
        """Return the targets that the device runs."""
        return [name for name in TargetOptions.model_fields if getattr(self.targets, name) is not None]


def known_options(target: str, options: Options) -> Mapping[str, Any] | None:
    """Return options of a target as a profile would give them, with defaults, or None where no profile could."""
    try:
        found: BaseModel | None = getattr(TargetOptions.model_validate({target: options}), target)
    except ValidationError:
        return None
    return None if found is None else found.model_dump()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile file, in which `extends` stands for all that it does not say itself."""
    schema = DeviceProfile.model_json_schema()
    base = {"type": "string", "description": "Name or file of a profile whose keys count where this one has none."}
    schema["properties"] = {"extends": base, **schema["properties"]}
    schema["properties"]["connection"] = {
        "anyOf": [schema["properties"]["connection"], {"enum": list(Connection.model_fields)}]
    }
    schema["properties"]["precision"] = {"anyOf": [schema["properties"]["precision"], Mixed.model_json_schema()]}
    schema["$defs"]["Connection"] |= {"minProperties": 1, "maxProperties": 1}
    schema["required"] = ["name"]
    schema["anyOf"] = [{"required": ["targets"]}, {"required": ["extends"]}]
    return {"$schema": _DIALECT, **schema}
