"""The page of a fleet with a network for each user: structures and packages beside what all pages of a fleet have."""

from exporter.artifact.results import FleetDocument
from exporter.report import fleet_page as page
from exporter.report import fleet_words
from exporter.report.units import bytes_
from exporter.report.views import Cell, Table


def fleet_ofa_page(document: FleetDocument, plan: FleetDocument) -> str:
    """Return the page for the summary of such a fleet, and its plan."""
    golden, stored = document["golden_cases"], document["stored"]
    made = f"{document['model']}/{document['program']} on {document['target']} in {document['precision']}"
    asked = {name: value for name, value in plan.items() if name != "artifacts"}  # a line each, in the table
    return page.page_of(
        page.FleetView(
            document["verdict"],
            f"{made}: {fleet_words.users_of(document)}, of {plan['data']}, weights packages in {stored['as']}",
            (
                page.Card("Users for whom artifacts were run, drawn", document["verdict_of_users"], document["reason"]),
                page.Card("Golden cases of the artifacts", golden["verdict"], golden["reason"]),
            ),
            (
                ("Users", page.users_table(document)),
                ("Structures", _structures(document)),
                ("What was clicked next, by the artifacts", page.clicked_table(document["clicked_next"])),
                *_stored(stored),
                ("Scores and the top 10", page.figures_table(document)),
            ),
            document["distributions"],
            (*page.run_facts(document), *_packages(document), *page.plan_facts(asked)),
        )
    )


def _structures(document: FleetDocument) -> Table | str:
    lines, golden = document["structures"], document["golden_cases"]["by_structure"]
    ranked = sum(line["users"] for line in lines)
    rows = tuple(
        (
            Cell(line["structure"]),
            page.number(line["users"]),
            page.number(line["users"] / ranked, page.share_of),
            page.number(line["blocks"]),
            page.number(line["bytes_down"]),
            page.number(line["flops"]),
            Cell(golden.get(line["structure"], "none made")),
        )
        for line in lines
    )
    caption = "Users by the structure that they get, 1 for a block that runs, the commonest first"
    columns = ("structure", "users", "share", "blocks", "bytes down", "FLOPs", "golden cases of its artifact")
    return Table("structures", caption, columns, rows) if rows else "No user was ranked for."


def _stored(stored: FleetDocument) -> tuple[tuple[str, Table | str], ...]:
    """Return how torch ranks for all users with the weights of their packages, where these are not in fp32."""
    if stored["as"] == "fp32":
        return ()
    title = f"by packages in {stored['as']}, for all users"
    return (
        (f"What was clicked next, {title}", page.clicked_table(stored["clicked_next"], "stored")),
        (f"Who loses, who gains, {title}", page.by_clicks_table(stored["clicked_next"], "stored")),
    )


def _packages(document: FleetDocument) -> tuple[tuple[str, str], ...]:
    packages = document["run"]["packages"]
    return () if packages is None else (("packages", f"{packages['place']}, {bytes_(packages['bytes'])}"),)
