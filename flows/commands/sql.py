"""`maskwheel sql`: questions to a release, in SQL."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, workspace_address, workspace_option

if TYPE_CHECKING:
    import pyarrow as pa

# What it answers -> the statement. Each one stands in the command's help and is run by a test.
RECIPES = {
    "masks per image": """
select masks, count(*) as images
from (select i.image_id, count(m.mask_id) as masks
      from images i left join masks m using (image_id) group by i.image_id)
group by masks order by masks""",
    "the ten largest masks": """
select mask_id, uri, area, round(100.0 * area / (size_h * size_w), 1) as percent
from masks join images using (image_id) order by area desc, mask_id limit 10""",
    "histogram of the predicted IoU": """
select round(floor(predicted_iou * 20) / 20, 2) as at_least, count(*) as masks
from masks group by 1 order by 1""",
    "runs beside each other": """
select run_id, model_id, count(*) as masks, count(distinct image_id) as images,
  round(avg(predicted_iou), 3) as iou, median(area) as median_area
from masks group by all order by run_id""",
    "images without masks": """
select uri from images anti join masks using (image_id) order by uri""",
    "what a run skipped, and why": """
select uri, r.run_id, reason, message
from image_runs r join images using (image_id) where status = 'skipped' order by all""",
    "masks by stage and annotator": """
select stage, annotator_id, count(*) as masks, sum(active_seconds) as seconds
from masks group by all order by all""",
    "small masks that touch the image's border": """
select mask_id, image_id, area from masks
where area < 400 and (bbox_x = 0 or bbox_y = 0
  or bbox_x + bbox_w = size_w - 1 or bbox_y + bbox_h = size_h - 1)
order by area, mask_id limit 20""",
}
COMPARED = """
select count(*) filter (where b.mask_id is null) as only_in_r1,
  count(*) filter (where a.mask_id is null) as only_in_r2
from r1.masks a full join r2.masks b using (mask_id)"""

_SHOWN_CHARACTERS = 60
_WIDE = 10_000


def _epilog() -> str:
    recipes = "\n".join(f"  {what}:{_indented(sql)}" for what, sql in RECIPES.items())
    return f"""\b
Examples:
  maskwheel sql "describe masks"
  maskwheel sql "select count(*), avg(area) from masks" --json
  maskwheel sql "from masks" --release r3 --parquet masks.parquet
  maskwheel sql - < question.sql

\b
Recipes:
{recipes}

\b
  masks that came and went between two releases (--release r1 --release r2):{_indented(COMPARED)}"""  # noqa: S608  (shown, not run)


def _indented(statement: str) -> str:
    return statement.replace("\n", "\n    ")


@click.command("sql", epilog=_epilog())
@click.argument("statement")
@workspace_option
@click.option(
    "--release",
    "names",
    multiple=True,
    help="Which release; of several, each is a schema: r1.masks.  [default: the newest]",
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the rows to a Parquet file.",
)
@click.option(
    "--max-rows",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Rows in the printed table; the other forms give all.",
)
@click.option("--allow-files", is_flag=True, help="Let the statement use other local files.")
def command(
    statement: str,
    workspace: str | None,
    names: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
    max_rows: int,
    allow_files: bool,
) -> None:
    """Ask a release in SQL (DuckDB's): views images, masks and image_runs.

    STATEMENT is one or more statements; the rows of the last one are the answer. "-" reads them
    from standard input. Nothing can be changed by it.
    """
    from engine.dataset.sql import open_database

    if as_json + as_csv + (parquet is not None) > 1:
        raise click.UsageError("--json, --csv and --parquet exclude each other")
    text = sys.stdin.read() if statement == "-" else statement
    address = workspace_address(workspace)
    with open_database(address, names, other_files=allow_files) as database:
        rows = database.query(text)
        if as_json:
            _print_json(rows, [release.name for release in database.releases])
        elif as_csv:
            _print_csv(rows)
        elif parquet is not None:
            click.echo(f"{_write_parquet(rows, parquet)} rows: {parquet}")
        else:
            _print_table(rows, max_rows)


def _values(rows: pa.RecordBatchReader) -> Iterator[tuple[object, ...]]:
    for batch in rows:
        yield from zip(*(_column(column.to_pylist()) for column in batch.columns), strict=True)


def _column(values: Sequence[object]) -> Iterator[object]:
    """Sums of whole numbers are decimals without a fraction in DuckDB: make them integers."""
    return (int(v) if isinstance(v, Decimal) and v == v.to_integral_value() else v for v in values)


def _print_table(rows: pa.RecordBatchReader, max_rows: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for field in rows.schema:
        number = str(field.type).startswith(("int", "uint", "float", "double", "decimal"))
        table.add_column(Text(field.name), justify="right" if number else "left", no_wrap=True)
    values = _values(rows)
    for row in islice(values, max_rows):
        table.add_row(*(Text(_shown(value)) for value in row))
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    if next(values, None) is not None:
        click.echo(
            f"the first {max_rows} rows; all of them: --csv, --json, --parquet FILE or "
            "--max-rows N",
            err=True,
        )


def _shown(value: object) -> str:
    text = _cell(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _print_csv(rows: pa.RecordBatchReader) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for row in _values(rows):
        writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(_json_value(value))
    return value.isoformat() if isinstance(value, date | time | datetime) else str(value)


def _print_json(rows: pa.RecordBatchReader, releases: Sequence[str]) -> None:
    names = _distinct_names(rows)
    click.echo(f'{{\n"releases": {json.dumps(releases)},\n"columns": {json.dumps(names)},')
    click.echo('"rows": [', nl=False)
    for number, row in enumerate(_values(rows)):
        fields = {name: _json_value(value) for name, value in zip(names, row, strict=True)}
        click.echo(f"{',' if number else ''}\n{json.dumps(fields)}", nl=False)
    click.echo("\n]\n}")


def _json_value(value: object) -> object:
    """Return what JSON can hold; it has no NaN and no infinity."""
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else _cell(value)


def _write_parquet(rows: pa.RecordBatchReader, path: Path) -> int:
    import pyarrow.parquet as pq

    _distinct_names(rows)
    count = 0
    unfinished = path.with_name(f".{path.name}.writing")
    try:
        with pq.ParquetWriter(unfinished, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)
                count += batch.num_rows
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _distinct_names(rows: pa.RecordBatchReader) -> list[str]:
    from engine.errors import BadInputError

    names: list[str] = rows.schema.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInputError(
            f"got several columns called {', '.join(twice)}; give each a name of its own with 'as'"
        )
    return names
