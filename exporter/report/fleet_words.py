"""What console and page of a fleet both say in words: who was judged, what their ids are, what a status is."""

from collections.abc import Mapping

from exporter.artifact.results import FleetDocument

IDS: Mapping[str, str] = {
    "raw": "those of the checkpoint's items.tsv",
    "as_trained": "of the very file of the training, whose order says which row of the item table each is",
    "rows": "taken as rows of the item table, since the checkpoint has no items.tsv",
}
MEANING: Mapping[str, str] = {
    "all": "judged, or found to be of those below",
    "ranked": "the item clicked last was ranked among others",
    "one_click": "no clicks before the last",
    "unknown_items": "fewer than two clicks on items that the model has",
    "all_clicked": "too few items left that were never clicked",
    "pass": "scores as near to torch's as is allowed",
    "fail": "scores further from torch's than is allowed",
    "unverified": "nothing here could tell",
    "not_drawn": "ranked by torch, no artifact run",
}


def users_of(document: FleetDocument) -> str:
    """Return how many users there are, and of how many they were drawn."""
    users, of = document["users"]["all"], document["drawn_of"]
    return f"{users:,} users" if of is None else f"{users:,} of {of:,} users, drawn"


def among(clicked: FleetDocument) -> str:
    """Return what a user's last click was ranked among."""
    return f"ranked among {clicked['candidates']:,} items: it and {clicked['candidates'] - 1:,} never clicked, drawn"
