"""What a person reads of all users at once."""

from rich.console import Console
from rich.text import Text

from exporter.artifact.results import FleetDocument, FleetResult
from exporter.report import fleet_words, terminal
from exporter.report.units import bytes_, percent
from safeio.errors import printable


def print_fleet(result: FleetResult) -> None:
    """Print the summary of a run, a line for each thing that it says."""
    console = terminal.console(soft_wrap=True)
    print_verdict(console, result)
    for line in lines(result):
        console.print(Text(line))


def print_verdict(console: Console, result: FleetResult) -> None:
    """Print what was judged, and how."""
    document = result.document
    made = f"{document['model']}/{document['program']}  {document['target']}  {document['precision']}"
    console.print(Text(made, style="bold"))
    console.print(
        Text.assemble(
            "verdict  ", (document["verdict"], terminal.VERDICT_STYLES[document["verdict"]]), f"  {document['reason']}"
        )
    )
    if document["golden_cases"]["verdict"] != "pass":
        console.print(Text(f"golden   {document['golden_cases']['verdict']}: {document['golden_cases']['reason']}"))


def lines(result: FleetResult) -> list[str]:
    """Return what follows the verdict."""
    return [*user_lines(result.document), *ranking_lines(result.document), *run_lines(result)]


def user_lines(document: FleetDocument) -> list[str]:
    """Return who there is, and what of their clicks is left out."""
    users = document["users"]
    others = [f"{count:,} {name.replace('_', ' ')}" for name, count in users.items() if name != "all" and count]
    told = [f"users    {fleet_words.users_of(document)}: {', '.join(others) or 'none'}"]
    told.append(f"ids      {fleet_words.IDS[document['ids']]}")
    clicks = document["clicks"]
    if clicks["most"] is not None:
        told.append(f"clicks   at most {clicks['most']['clicks']:,}, of user {printable(clicks['most']['user'])}")
    if clicks["unknown"]:
        told.append(f"unknown  {clicks['unknown']:,} clicks of {clicks['users_with_unknown']:,} users, left out")
    return told


def ranking_lines(document: FleetDocument) -> list[str]:
    """Return how scores and rankings differ from torch's."""
    told, top10 = [], document["top10"]
    if document["max_abs_error"] is not None:
        worst = document["max_abs_error"]
        value = "no number" if worst["value"] is None else f"{worst['value']:.3g}"
        told.append(f"error    {value} at most, of user {printable(worst['user'])}")
    if top10["overlap"] is not None:
        told.append(f"top 10   {top10['flipped']:,} users get another set, {top10['could_flip']:,} could")
        if top10.get("torch", "the same") != "the same":
            told.append(f"         {top10['flipped_from_torch']:,} users get another set than from torch in fp32")
    told += clicked_lines(document["clicked_next"], "artifact")
    return told


def run_lines(result: FleetResult) -> list[str]:
    """Return how fast the command was, and where the rows are."""
    told, run = [], result.document["run"]
    if run["users"]:
        pace = f"{run['users']:,} users in {run['seconds']:.1f} s with {_some(run['workers'], 'worker')}"
        pace += ", by an earlier command; all were judged" if run["pace_of"] != "this command" else ""
        told.append(f"pace     {run['users_per_second']:,.0f} users a second: {pace}")
    told.append(f"{result.place}: {_some(run['parts'], 'part')}, {bytes_(run['bytes'])}; summary.html shows all of it")
    return told


def clicked_lines(clicked: FleetDocument | None, other: str) -> list[str]:
    """Return what became of the items that were clicked next, by torch and by what the figures call `other`."""
    if clicked is None:
        return []
    moved = ", ".join(f"{count:,} {how}" for how, count in clicked["rank"].items())
    told = [f"clicked  {fleet_words.among(clicked)}", f"rank     {moved}, beside torch in fp32"]
    for name, label in (("ndcg10", "NDCG@10"), ("hit10", "Hit@10 ")):
        figures = clicked[name]
        change, low, high = (percent(figures[key]) for key in ("change", "low", "high"))
        told.append(f"{label}  {figures[other]:.6f}, torch {figures['torch']:.6f}: {change} ({low} to {high})")
    return told


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
