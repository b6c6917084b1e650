"""What a person reads of all users of a model with a network for each."""

from rich.text import Text

from exporter.artifact.results import FleetDocument, FleetResult
from exporter.report import fleet, terminal
from exporter.report.units import MISSING, bytes_
from safeio.errors import printable

_SHOWN = 8


def print_fleet_ofa(result: FleetResult) -> None:
    """Print the summary of a run, a line for each thing that it says."""
    console = terminal.console(soft_wrap=True)
    fleet.print_verdict(console, result)
    for line in lines(result):
        console.print(Text(line))


def lines(result: FleetResult) -> list[str]:
    """Return what follows the verdict."""
    document, stored = result.document, result.document["stored"]
    told = fleet.user_lines(document)
    structures = document["structures"]
    for line in structures[:_SHOWN]:
        flops = MISSING if line["flops"] is None else f"{line['flops']:,} FLOPs"
        told.append(f"  {line['structure']}  {line['users']:,} users, {bytes_(line['bytes_down'])} down, {flops}")
    if len(structures) > _SHOWN:
        told.append(f"  and {len(structures) - _SHOWN:,} other structures")
    drawn = sum(document["verdicts"].values()) - document["verdicts"]["not_drawn"]
    told.append(f"parity   of {drawn:,} users, drawn: {', '.join(_verdicts(document))}")
    if document["clicked_next"] is not None:
        told.append(
            f"artifacts with packages in {stored['as']}, of the {document['clicked_next']['users']:,} users drawn:"
        )
    told += fleet.ranking_lines(document)
    if stored["as"] != "fp32" and stored["clicked_next"] is not None:
        everybody = f"{stored['clicked_next']['users']:,} users ranked"
        told.append(f"torch with packages in {stored['as']}, of all {everybody}:")
        told.append(f"error    {stored['max_abs_error']:.3g} at most, beside torch in fp32")
        told += fleet.clicked_lines(stored["clicked_next"], "stored")
    told += fleet.run_lines(result)
    packages = document["run"]["packages"]
    if packages is not None:
        told.append(f"{printable(packages['place'])}: packages, {bytes_(packages['bytes'])}")
    return told


def _verdicts(document: FleetDocument) -> list[str]:
    found = [f"{count:,} {name}" for name, count in document["verdicts"].items() if count and name != "not_drawn"]
    return found or ["none"]
