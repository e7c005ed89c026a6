"""The comparison as Markdown, for Dagster and MLflow."""

import base64
from collections.abc import Iterator, Mapping, Sequence

from clipcov_assets.export.charts import PICTURES
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.escape import escape_markdown
from clipcov_assets.export.summary import Cell, Table, summary


def comparison_markdown(tables: ComparisonTables, crawl: str) -> str:
    """Write the tables of a crawl: scores, averages, sufficient sizes, what is kept, and the trainings.

    Raises:
        ValueError: No score of this crawl.
    """
    return "\n\n".join("\n\n".join(_table(table)) for table in summary(tables, crawl).values()) + "\n"


def pictures_markdown(drawn: Mapping[str, bytes]) -> str:
    """Write pictures, name -> PNG, into the text itself, each with its title and how to read it."""
    return "\n\n".join(
        f"### {PICTURES[name].title}\n\n"
        f"![{PICTURES[name].title}](data:image/png;base64,{base64.b64encode(png).decode()})\n\n{PICTURES[name].caption}"
        for name, png in drawn.items()
    )


def _table(table: Table) -> Iterator[str]:
    yield f"### {table.title}"
    if table.note:
        yield table.note
    if table.rows:
        lines = [_line(table.header), "|" + " --- |" * len(table.header), *(_line(row.cells) for row in table.rows)]
        yield "\n".join(lines)
    yield from map(escape_markdown, table.remarks)


def _line(cells: Sequence[Cell]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return " ".join(filter(None, [f"**{text}**" if cell.bold else text, escape_markdown(cell.aside)]))
