"""The page of a fleet: verdict, users, figures with their intervals, distributions, and by what plan it was had."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from exporter.artifact.results import FleetDocument
from exporter.report import fleet_words, pages
from exporter.report.distributions import distribution
from exporter.report.standing import Tone
from exporter.report.units import MISSING, bytes_, percent
from exporter.report.views import Cell, Figure, Table

TONE_OF: Mapping[str, Tone] = {"pass": "good", "fail": "bad", "unverified": "unsure"}
_OF_RUN = {
    "users": "users judged by the last command that judged any",
    "seconds": "seconds that it took",
    "workers": "workers",
    "users_per_second": "users a second",
    "parts": "Parquet files",
    "bytes": "bytes in them",
    "artifact": "the artifact in this folder",
}


@dataclass(frozen=True)
class Card:
    """A verdict on the page: what is judged, how, and why."""

    title: str
    verdict: str
    reason: str

    @property
    def tone(self) -> Tone:
        """Return how it is shown."""
        return TONE_OF[self.verdict]


@dataclass(frozen=True)
class FleetView:
    """What a page of a fleet shows: its verdict, a line on what was judged, and its parts in their order.

    `tables` are titles with tables or, where there is none, words; `facts` are names and values.
    """

    verdict: str
    lead: str
    cards: Sequence[Card]
    tables: Sequence[tuple[str, Table | str]]
    distributions: Sequence[FleetDocument]
    facts: Sequence[tuple[str, str]]


def fleet_page(document: FleetDocument, plan: FleetDocument) -> str:
    """Return the page for the summary of a fleet that ranks, and its plan."""
    made = f"{document['model']}/{document['program']} on {document['target']} in {document['precision']}"
    golden = document["golden_cases"]
    return page_of(
        FleetView(
            document["verdict"],
            f"{made}: {fleet_words.users_of(document)}, of {plan['data']}",
            (
                Card("All users together", document["verdict_of_users"], document["reason"]),
                Card("Golden cases of the artifact", golden["verdict"], golden["reason"]),
            ),
            (
                ("Users", users_table(document)),
                ("What was clicked next", clicked_table(document["clicked_next"])),
                ("Who loses, who gains", by_clicks_table(document["clicked_next"])),
                ("Scores and the top 10", figures_table(document)),
            ),
            document["distributions"],
            (*run_facts(document), *plan_facts(plan)),
        )
    )


def page_of(view: FleetView) -> str:
    """Return the page of a view."""
    figures = [
        Figure(shown["title"], shown.get("note") or "", (distribution(f"distribution-{at}", shown),))
        for at, shown in enumerate(view.distributions, start=1)
    ]
    return pages.render(
        "fleet.html.j2",
        has_script=False,
        word=view.verdict,
        tone=TONE_OF[view.verdict],
        lead=view.lead,
        cards=view.cards,
        sections=[(f"part-{at}", title, shown) for at, (title, shown) in enumerate(view.tables, start=1)],
        figures=figures,
        facts=view.facts,
    )


def run_facts(document: FleetDocument) -> list[tuple[str, str]]:
    """Return what a file's item ids are, and pace and size of a run, as its summary has them."""
    run = document["run"]
    return [
        ("item ids of the file", fleet_words.IDS[document["ids"]]),
        *_of_run(run),
    ]


def _of_run(run: FleetDocument) -> list[tuple[str, str]]:
    return [
        (label, bytes_(run[name]) if name == "bytes" else _plain(run[name]))
        for name, label in _OF_RUN.items()
        if name in run
    ]


def plan_facts(plan: FleetDocument) -> list[tuple[str, str]]:
    """Return what tells runs apart, as plan.json has it."""
    facts = []
    for name, value in plan.items():
        if name == "schema_version":
            continue
        words = ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) if isinstance(value, Mapping) else None
        facts.append((name.replace("_", " "), _plain(value) if words is None else words or "none"))
    return facts


def _plain(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def users_table(document: FleetDocument) -> Table:
    """Return users by what became of them; who passes is told where not everybody who is ranked for is judged."""
    meaning = fleet_words.MEANING
    users, named, others = document["users"], document["users_named"], document["verdicts"]
    if "not_drawn" not in others:
        others = {name: count for name, count in others.items() if name != "pass"}
    rows = [
        (
            Cell(name.replace("_", " ")),
            Cell(meaning[name]),
            number(count),
            number(count / users["all"] if users["all"] else None, share_of),
            Cell(", ".join(named.get(name, [])) + (", …" if count > len(named.get(name, [])) > 0 else "")),
        )
        for name, count in {**users, **others}.items()
    ]
    caption = "Users by what became of them, and the first of those who were not ranked for or do not pass"
    return Table("users", caption, ("status or verdict", "what it is", "users", "share", "for example"), tuple(rows))


def clicked_table(clicked: FleetDocument | None, other: str = "artifact") -> Table | str:
    """Return how torch in fp32 and another, which the figures call `other`, rank what was clicked next."""
    if clicked is None:
        return "No user was ranked for."
    rows = tuple(
        (Cell(title), *_paired(clicked[name], other)) for name, title in (("ndcg10", "NDCG@10"), ("hit10", "Hit@10"))
    )
    columns = ("figure", "torch in fp32", other, *_CHANGE)
    return Table(
        f"clicked-{other}",
        f"{clicked['users']:,} users, {fleet_words.among(clicked)}; {clicked['method']}",
        columns,
        rows,
    )


def by_clicks_table(clicked: FleetDocument | None, other: str = "artifact") -> Table | str:
    """Return the same by the clicks of users."""
    if clicked is None:
        return "No user was ranked for."
    rows = tuple(
        (Cell(group["clicks"]), number(group["users"]), *_paired(group["ndcg10"], other))
        for group in clicked["by_known_clicks"]
    )
    caption = "NDCG@10 by a user's clicks on items that the model has, the one to rank among them"
    columns = ("clicks", "users", "torch in fp32", other, *_CHANGE)
    return Table(f"by-clicks-{other}", caption, columns, rows)


_CHANGE = ("change", "95 % interval of the change")


def _paired(figures: FleetDocument, other: str) -> tuple[Cell, ...]:
    low, high = (percent(figures[name]) for name in ("low", "high"))
    return (
        number(figures["torch"], "{:.6f}".format),
        number(figures[other], "{:.6f}".format),
        number(figures["change"], percent),
        Cell(MISSING if low == high == MISSING else f"{low} to {high}", is_figure=True),
    )


def figures_table(document: FleetDocument) -> Table:
    """Return how scores and the top 10 differ from torch's, and what of clicks is left out."""
    top10, worst, clicks = document["top10"], document["max_abs_error"], document["clicks"]
    rows = []
    if worst is not None:
        value = "no number" if worst["value"] is None else f"{worst['value']:.3g}"
        rows.append(("largest error of a score", value, f"of user {worst['user']}"))
    if top10["overlap"] is not None:
        rows.append(("mean overlap of the top 10", f"{top10['overlap']:.6f}", ""))
        rows.append(("users with another set in the top 10", f"{top10['flipped']:,}", ""))
        rows.append(("users whose set an error as large could change", f"{top10['could_flip']:,}", ""))
        if top10["torch"] != "the same":
            rows.append(("users with another set than from torch in fp32", f"{top10['flipped_from_torch']:,}", ""))
    rows.append(
        (
            "clicks on items that the model does not have",
            f"{clicks['unknown']:,}",
            f"of {clicks['users_with_unknown']:,} users, left out of their histories",
        )
    )
    if clicks["most"] is not None:
        rows.append(("most clicks of a user", f"{clicks['most']['clicks']:,}", f"user {clicks['most']['user']}"))
    cells = tuple((Cell(label), Cell(value, is_figure=True), Cell(note)) for label, value, note in rows)
    other = "" if top10["torch"] == "the same" else " with numbers as they are stored, but where another is named"
    return Table("figures", f"Beside torch{other}", ("figure", "value", "note"), cells)


def share_of(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f} %"


def number(value: float | None, form: Callable[[float], str] = "{:,}".format) -> Cell:
    """Return the cell of a number."""
    return Cell(MISSING if value is None else form(value), value, is_figure=True)
