"""A report as one page of HTML: its verdicts, its figures side by side, and the plots of each artifact."""

from exporter.artifact.results import Report
from exporter.report import pages
from exporter.report.figures import figures_of
from exporter.report.standing import TONES, headline, what_else_moved
from exporter.report.views import artifact_view, figures_table, limits_table


def html(report: Report) -> str:
    """Return the page of a report."""
    word, counts = headline(report)
    return pages.render(
        "report.html.j2",
        has_script=True,
        word=word,
        counts=counts,
        tone=TONES[report.exit_code] if report.artifacts else "unsure",
        config=report.config,
        lock=report.lock,
        else_moved=what_else_moved(report),
        limits=limits_table(report),
        figures=figures_table(report),
        artifacts=[
            artifact_view(name, checked, figures_of(name, checked))
            for name, checked in ((f"artifact-{at}", checked) for at, checked in enumerate(report.artifacts, start=1))
        ],
    )
