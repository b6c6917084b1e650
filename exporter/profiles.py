"""The device profile: what a device runs, how precise and on how many threads; YAML, validated to the line and key."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from exporter.core.errors import ProfileError, UnknownNameError
from exporter.core.types import Precision

_MAX_PROFILE_BYTES = 1 << 20
_SHIPPED = Path(__file__).resolve().parent.parent / "device_profiles"  # beside this package in a wheel and a clone


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExecuTorchOptions(_Strict):
    """Who computes a .pte: XNNPACK, the portable kernels, or a delegate that only the device has."""

    delegate: Literal["xnnpack", "portable", "coreml", "vulkan"] = "xnnpack"


class CoreMLOptions(_Strict):
    """The oldest system that must run the package."""

    deployment_target: Literal["iOS15", "iOS16", "iOS17", "iOS18"] = "iOS17"


class OnnxOptions(_Strict):
    """The ONNX operator set."""

    opset: int = Field(default=20, ge=18, le=23)


class TFLiteOptions(_Strict):
    """TFLite has no options yet."""


class TargetOptions(_Strict):
    """Options of each target that the device runs; a target that is absent is not allowed on it."""

    executorch: ExecuTorchOptions | None = None
    coreml: CoreMLOptions | None = None
    onnx: OnnxOptions | None = None
    tflite: TFLiteOptions | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _named_without_options(cls, value: Any) -> Any:
        return {} if value is None else value


class Budgets(_Strict):
    """The most that one program may cost: FLOPs per token of history, weights, bytes of its files, median latency."""

    flops_per_token: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    parameters: int | None = Field(default=None, gt=0)
    size_bytes: int | None = Field(default=None, gt=0)
    latency_us: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DeviceProfile(_Strict):
    """One device: `threads` is what latency is measured with, `targets` what may be lowered for it.

    A sub-network that exceeds a budget of `budgets` loses blocks until it fits.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    precision: Precision = "fp32"
    threads: int = Field(default=1, ge=1, le=256)
    targets: TargetOptions
    budgets: Budgets = Budgets()

    def options_for(self, target: str) -> Mapping[str, Any]:
        """Return the options of `target`; raises ProfileError where the profile does not allow it."""
        options: BaseModel | None = getattr(self.targets, target)
        if options is None:
            known = ", ".join(self.allowed()) or "none"
            raise ProfileError(f"profile {self.name!r} does not allow target {target!r}; it allows: {known}")
        return options.model_dump()

    def stated_budgets(self) -> dict[str, float]:
        """Return the budgets that are stated, by name."""
        return self.budgets.model_dump(exclude_none=True)

    def allowed(self) -> list[str]:
        """Return the targets that the device runs."""
        return [name for name in TargetOptions.model_fields if getattr(self.targets, name) is not None]


def shipped() -> dict[str, Path]:
    """Return name -> file of the profiles that come with the project."""
    return {file.stem: file for file in sorted(_SHIPPED.glob("*.yaml"))}


def load(name_or_file: str) -> DeviceProfile:
    """Load a shipped profile by name, or a profile file by its path; raises ProfileError or UnknownNameError."""
    known = shipped()
    if name_or_file in known:
        return _read(known[name_or_file])
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        return _read(path)
    raise UnknownNameError("profile", name_or_file, known)


def _read(path: Path) -> DeviceProfile:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PROFILE_BYTES + 1)
        if len(text) > _MAX_PROFILE_BYTES:
            raise ProfileError(f"{path}: larger than {_MAX_PROFILE_BYTES} bytes; that is no device profile")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ProfileError(f"{path}: YAML aliases are not allowed in a profile; write the value out")
        data = yaml.safe_load(text)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}; give the name or the file of a device profile") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise ProfileError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise ProfileError(f"{path}: nested too deeply for a device profile") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path}:1: a profile is a mapping of keys to values")
    lines: dict[tuple[str, ...], int] = {}
    for keys, line in _lines(node):
        if lines.setdefault(keys, line) != line:
            raise ProfileError(f"{path}:{line}: {'.'.join(keys)}: this key stands already in line {lines[keys]}")
    try:
        return DeviceProfile.model_validate(data)
    except ValidationError as error:
        raise ProfileError("; ".join(_explain(path, lines, problem) for problem in error.errors()[:3])) from error


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (path of keys, 1-based line) for every key of a composed YAML mapping."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            keys = (*prefix, str(key.value))
            yield keys, key.start_mark.line + 1
            yield from _lines(value, keys)


def _explain(path: Path, lines: Mapping[tuple[str, ...], int], problem: Any) -> str:
    keys = tuple(str(part) for part in problem["loc"])
    known = next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), 1)
    where = f"{path}:{known}: {'.'.join(keys) or 'profile'}"
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key; known here: {', '.join(_fields(keys[:-1]))}"
        case "missing":
            return f"{where}: this key is missing"
        case "literal_error":
            return f"{where}: {problem['input']!r} is not one of {problem['ctx']['expected']}"
        case _:
            message = problem["msg"]
            return f"{where}: {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _fields(keys: tuple[str, ...]) -> list[str]:
    """Return the keys that are allowed under the path `keys` of a profile."""
    model: type[BaseModel] = DeviceProfile
    for key in keys:
        annotation: Any = model.model_fields[key].annotation
        options = (annotation, *getattr(annotation, "__args__", ()))
        model = next(part for part in options if isinstance(part, type) and issubclass(part, BaseModel))
    return sorted(model.model_fields)
