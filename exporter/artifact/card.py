"""README.md of an artifact: what it is, what goes in and comes out, and code that calls it; drawn from the manifest.

The card is listed and hashed like every file of an artifact, and `profile` writes figures into the manifest alone. So
the card has only what follows from the files and the golden cases; times, memory and whether budgets of them are kept
stand in manifest.json, which it names.
"""

from collections.abc import Iterable, Sequence

from exporter.artifact.manifest import Manifest
from exporter.core.calling import EXAMPLE, ITEMS, Language, Snippet, clicks_per_call
from exporter.core.sections import Interface, Port, Tensor

_TITLES: dict[Language, str] = {"python": "Python", "kotlin": "Kotlin", "swift": "Swift", "javascript": "JavaScript"}
_PROVED: dict[Language, str] = {
    "python": "The tests of cocorr-export run such code against golden cases.",
    "javascript": "The tests of cocorr-export run such code in node against golden cases.",
    "kotlin": "Parsed by the tests of cocorr-export, not compiled: that needs the vendor's packages.",
    "swift": "Parsed by the tests of cocorr-export, not compiled: that needs Apple's tools.",
}
_MEASURED = {"memory_bytes", "latency_us", "flops_per_token"}


def card(manifest: Manifest, snippets: Sequence[Snippet], weights_file: str | None, has_items: bool) -> str:
    """Return the Markdown of an artifact's card.

    `weights_file` names the file of external weights beside the program; `has_items` says that items.tsv is there.
    """
    interface = manifest.interface or _unstated(manifest)
    parts = [
        f"# {_text(manifest.model)}/{_text(manifest.program)} for {_text(manifest.target)}",
        _text(interface.description),
        _verdict(manifest),
        _figures(manifest),
        "## Inputs\n\n" + _ports(manifest.inputs, interface.inputs),
        "## Outputs\n\n" + _ports(manifest.outputs, interface.outputs),
        _ids(interface, has_items),
        _state(manifest),
        _weights(manifest, weights_file),
        _files(manifest),
        _code(snippets),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _unstated(manifest: Manifest) -> Interface:
    """Return the interface of an artifact from before there was one."""
    inputs, outputs = (
        tuple(Port(name=tensor.name, position=at) for at, tensor in enumerate(side))
        for side in (manifest.inputs, manifest.outputs)
    )
    return Interface("", inputs, outputs)


def _verdict(manifest: Manifest) -> str:
    parity = manifest.parity
    lines = [f"**Verdict: {parity.verdict}.**"]
    if parity.verdict == "unverified":
        lines.append("Nothing has proved that it computes what the model computes.")
    if parity.reason:
        reason = _text(parity.reason).rstrip(".")
        lines.append(f"{reason[:1].upper()}{reason[1:]}.")
    if (drawn := manifest.drawn) is not None:
        lines.append(f"{drawn.as_they_were} of its {drawn.cases} golden cases are as they were: {_text(drawn.method)}.")
    if parity.executed_on:
        lines.append(f"Ran on {_text(parity.executed_on)}.")
    if manifest.source.untrained:
        lines.append("Its weights are drawn, not trained: its rankings say nothing.")
    return " ".join(lines)


def _figures(manifest: Manifest) -> str:
    parity, flops, memory = manifest.parity, manifest.flops, manifest.memory
    rows: list[tuple[str, str | None]] = [
        ("device profile", f"{_text(manifest.profile)}, {manifest.precision}"),
        ("golden cases", _shown(parity.cases, "{:,}")),
        ("largest absolute error", _shown(parity.max_abs_error, "{:.2e}")),
        ("top-10 overlap", _shown(parity.top10_overlap, "{:.4f}")),
        (
            "top-10 overlap with tables in fp32",
            _shown(parity.scheme.top10_overlap if parity.scheme else None, "{:.4f}"),
        ),
        ("parameters", f"{manifest.parameters:,}"),
        ("bytes on the server" if manifest.runs_in_cloud else "bytes on the device", f"{manifest.size_bytes:,}"),
        ("FLOPs per call", _shown(flops.total if flops else None, "{:,}")),
        ("bytes of constants", _shown(memory.constant_bytes if memory else None, "{:,}")),
        ("bytes of planned activations", _shown(memory.planned_activation_bytes if memory else None, "{:,}")),
        ("blocks that run", None if manifest.selection is None else _text(manifest.selection.structure)),
        *((f"budget {row.budget}", _budget(row.budget, row.limit, row.within)) for row in manifest.budgets or ()),
    ]
    where = (
        "Times and the memory of a process depend on where it runs: `latency`, `memory` and `budgets` of"
        " `manifest.json` have what was measured last, and `cocorr-export profile` measures again."
    )
    return _table(("figure", "value"), [row for row in rows if row[1] is not None]) + "\n\n" + where


def _budget(name: str, limit: float, within: bool | None) -> str:
    kept = {True: "kept", False: "**exceeded**", None: "not known"}[within]
    return f"at most {limit:,.6g}: " + ("see `manifest.json`" if name in _MEASURED else kept)


def _shown(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def _ports(tensors: Sequence[Tensor], ports: Sequence[Port]) -> str:
    listed = any(port.listed_at is not None for port in ports)
    header = ("name", "position in the file", *(["position in its signature"] if listed else []))
    rows = []
    for tensor, port in zip(tensors, ports, strict=True):
        at = [] if not listed else ["-" if port.listed_at is None else str(port.listed_at)]
        own = "by position only" if port.own_name is None else _code_span(port.own_name)
        shape = f"[{', '.join(map(str, tensor.shape))}]"
        meaning = _text(port.meaning) or "not stated"
        rows.append((_code_span(port.name), str(port.position), *at, own, tensor.dtype, shape, meaning))
    return _table((*header, "tensor in the file", "dtype", "shape", "meaning"), rows)


def _ids(interface: Interface, has_items: bool) -> str:
    if not any(port.holds_items for port in (*interface.inputs, *interface.outputs)):
        return ""
    if has_items:
        return (
            f"## Ids\n\n`{ITEMS}` has the raw id of each row of the item table, as the data had it (row, id,"
            " clicks; a tab, a line feed, a carriage return and a backslash in an id are written `\\t`, `\\n`, `\\r`,"
            " `\\\\`). Row 0 is padding. The code below gives an id that is not in it row -1, an item of which nothing"
            " is known."
        )
    return "## Ids\n\nIds are rows of the item table, 1 and up; which item each row is, this artifact does not say."


def _state(manifest: Manifest) -> str:
    if not manifest.state:
        return ""
    lines = [
        f"- {_code_span(output)} of a call is {_code_span(taken)} of the next"
        for output, taken in manifest.state.items()
    ]
    clicks = clicks_per_call(manifest.state, manifest.inputs)
    taken_in = "one click" if clicks == 1 else f"up to {clicks} clicks"
    return (
        f"## What to carry over\n\nOne call takes in {taken_in}. Before the first all of these are zero; keep them for"
        " each user or session:\n\n" + "\n".join(lines)
    )


def _weights(manifest: Manifest, weights_file: str | None) -> str:
    external = manifest.external
    if external is None or weights_file is None:
        return ""
    numbers = f"{len(external.tensors)} tensors of one user's weights"
    in_bytes = external.stored == "int8"
    back = "`NAME` times `NAME.scale`, a scale for each row"
    how = "are inputs too: read them from that file by name, once for each user"
    if in_bytes:
        how += f"; those in int8 are {back}"
    if external.data_file is not None:
        how = "the runtime reads when it loads the program: put another file in its place and load the program again"
    if external.data_file is not None and in_bytes:
        how = (
            "the runtime reads when it loads the program, with no tensor in int8. A weights package comes in int8"
            f" and cannot be put in its place as it is: what belongs there is {back}"
        )
    return (
        f"## Weights to swap\n\n{_code_span(weights_file)} has {numbers}, which {how}. `cocorr-export swap` makes the"
        " artifact of another user from a weights package, and judges it."
    )


def _files(manifest: Manifest) -> str:
    taking = "a server loads" if manifest.runs_in_cloud else "an app ships"
    return (
        "## Files\n\n"
        f"{_code_span(manifest.model_file)} is what {taking}. `{EXAMPLE}` has calls in plain JSON, with what"
        " torch computes for them where it did, `golden.npz` all golden cases, and `manifest.json` every figure, hash"
        " and version. `cocorr-export parity FOLDER` proves it again."
    )


def _code(snippets: Sequence[Snippet]) -> str:
    parts = ["## Code that calls it"]
    if not snippets:
        parts.append("None: a name of its inputs, outputs or files cannot stand in code as it is, or nobody wrote any.")
    for snippet in snippets:
        title, name = f"### {_TITLES[snippet.language]}, {snippet.runtime}", snippet.language
        if snippet.code is None:
            parts.append(f"{title}\n\n{snippet.note}")
            continue
        proved = snippet.proved or _PROVED[name]
        words = " ".join(text for text in (f"Needs `{snippet.needs}`.", snippet.note, proved) if text)
        parts.append(f"{title}\n\n{words}\n\n```{name}\n{snippet.code.rstrip()}\n```")
    return "\n\n".join(parts)


def _table(header: Iterable[str], rows: Iterable[Sequence[str | None]]) -> str:
    header = tuple(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _text(text: str) -> str:
    """Return words as they are to be read: what Markdown or HTML would make of them is escaped."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#&" else sign for sign in " ".join(text.split()))


def _code_span(text: str) -> str:
    plain = " ".join(text.replace("`", "'").replace("|", "/").split())
    return f"`{plain}`"
