"""What an artifact says of itself to those who put it into an app: example.json and README.md."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from exporter.targets import TARGETS

_CASES = 3  # in example.json

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.core.calling import Argument, Calling
    from exporter.core.sections import Interface, Port, Tensor
    from exporter.core.types import About, Arrays, Lowered
    from exporter.pipeline.exportable import Exportable
    from models.spec import InputSpec


def explain(folder: Path, manifest: "Manifest") -> "Manifest":
    """Write example.json and README.md anew into an artifact that is being made; return the manifest that lists them.

    All else of the artifact is in `folder` already, and judged. Raises ArtifactError and PackageError for files of an
    earlier artifact that cannot be read.
    """
    from exporter.artifact import store
    from exporter.artifact.card import card
    from exporter.artifact.example import example
    from exporter.core.calling import EXAMPLE
    from safeio import files

    inputs, outputs, *_ = store.read_golden(folder)
    items = store.read_items(folder, manifest)
    calling = _calling(manifest, items is not None)
    snippets = TARGETS[manifest.target].snippets(calling) if calling.is_plain else ()
    if manifest.runs_in_cloud:  # where no app is
        snippets = tuple(snippet for snippet in snippets if snippet.language == "python")
    own = _own_cases(folder, manifest, inputs)
    content = {
        EXAMPLE: example(manifest, inputs, outputs if own else None, own or [0], items),
        store.README: card(manifest, snippets, calling.data_file or calling.package, items is not None).encode(),
    }
    for name, data_bytes in content.items():
        (folder / name).unlink(missing_ok=True)
        files.write_new(folder / name, data_bytes)
    return replace(manifest, files=store.list_files(folder))


def _own_cases(folder: Path, manifest: "Manifest", inputs: "Arrays") -> list[int]:
    """Return the first golden cases that have no weights of their own, or those that lie in the artifact."""
    from exporter.artifact import weights
    from exporter.parity.verdict import are_same_weights

    cases, external = range(len(next(iter(inputs.values())))), manifest.external
    if external is None:
        return list(cases[:_CASES])
    data = external.data_file
    dtypes = {} if data is None else {name: dtype for name, (_, dtype) in data.tensors.items()}
    beside = weights.beside(folder, None if data is None else data.layout, external.shapes, external.metadata)
    own = (
        case
        for case in cases
        if all(
            are_same_weights(inputs[name][case], tensor, dtypes.get(name) == "float16")
            for name, tensor in beside.items()
        )
    )
    return list(itertools.islice(own, _CASES))


def interface(source: "Exportable", lowered: "Lowered", inputs: "tuple[Tensor, ...]") -> "Interface":
    """Return how an app meets a program: what its spec says of it, and where its file has inputs and outputs."""
    from exporter.core.sections import Interface, Port

    by_position = all(name is None for name, _ in lowered.inputs)
    places = {(place.side, place.name): place for place in lowered.places}
    specs = {spec.name: spec for spec in source.program.inputs}

    def port(side: Literal["input", "output"], at: int, name: str, meaning: str, holds_items: bool = False) -> "Port":
        place = places.get((side, name))
        if place is None:
            return Port(
                name=name,
                position=at,
                own_name=None if by_position else name,
                meaning=meaning,
                holds_items=holds_items,
            )
        return Port(
            name=name,
            position=place.position,
            own_name=place.own_name,
            listed_at=place.listed_at,
            meaning=meaning,
            holds_items=holds_items,
        )

    order = {name: at for at, (name, _) in enumerate(lowered.inputs) if name is not None}
    meanings = about(source)
    return Interface(
        description=meanings.description,
        inputs=tuple(
            port("input", order.get(one.name, at), one.name, meanings.inputs.get(one.name, ""), _rows(specs, one))
            for at, one in enumerate(inputs)
        ),
        outputs=tuple(
            port("output", at, name, meanings.outputs.get(name, ""), name == source.program.ranked)
            for at, name in enumerate(source.program.outputs)
        ),
    )


def about(source: "Exportable") -> "About":
    """Return what a program's files may say of it to people."""
    from exporter.core.types import About
    from exporter.targets.environment import version_of

    program, origin = source.program, source.origin
    kind = "checkpoint" if origin.program_sha256 is None else "program"
    sha256 = origin.checkpoint_sha256 or origin.program_sha256
    return About(
        description=program.description,
        inputs={spec.name: spec.meaning for spec in program.inputs if spec.meaning},
        outputs=dict(program.output_meanings),
        maker_version=version_of("cocorr-export") or "",
        weights="drawn, not trained" if sha256 is None else f"{kind} {sha256[:16]}",
    )


def _rows(specs: "Mapping[str, InputSpec]", tensor: "Tensor") -> bool:
    """Say whether an input has rows of the item table, [1, N]."""
    spec = specs.get(tensor.name)
    return spec is not None and spec.holds_items and len(tensor.shape) == 2


def _calling(manifest: "Manifest", raw_ids: bool) -> "Calling":
    """Return what code must know to call an artifact."""
    from exporter.artifact import weights
    from exporter.core.calling import Argument, Calling

    external, ports = manifest.external, manifest.interface
    outside = {tensor.name for tensor in external.tensors} if external is not None else set()
    data_file = external.data_file if external is not None else None
    sides = {"input": ports.inputs, "output": ports.outputs} if ports is not None else {}
    holding = {(side, port.name) for side, of_side in sides.items() for port in of_side if port.holds_items}

    def argument(side: Literal["input", "output"], tensor: "Tensor") -> "Argument":
        return Argument(tensor.name, tensor.shape, tensor.dtype, (side, tensor.name) in holding)

    return Calling(
        model=manifest.model,
        program=manifest.program,
        model_file=manifest.model_file,
        options=manifest.options,
        inputs=tuple(argument("input", tensor) for tensor in manifest.inputs if tensor.name not in outside),
        outputs=tuple(argument("output", tensor) for tensor in manifest.outputs),
        state=dict(manifest.state),
        weights=tuple(argument("input", tensor) for tensor in manifest.inputs if tensor.name in outside),
        package=None if external is None or data_file is not None else weights.FILE,
        data_file=None if data_file is None else data_file.name,
        raw_ids=raw_ids,
    )
