"""A parquet table of uids with rank and gain, to join with whatever else is known of the pairs."""

import pyarrow.parquet as pq

from clipcov_assets.export.subset_files.export_format import ChosenPairs, ExportFormat, ExportOptions, Watch
from resources.export_shelf import UnfinishedExport
from resources.text_columns import narrow, narrowed

NAME = "pairs.parquet"
COLUMNS = ["uid", "rank", "gain", "latent_class", "crawl"]


def _write(pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
    if NAME not in export:
        with export.piece(NAME) as piece, piece.open(NAME) as file:
            rows = pairs.rows.select(COLUMNS).replace_schema_metadata()
            with pq.ParquetWriter(file, narrow(rows.schema), compression="zstd") as table:
                for some in narrowed(rows):
                    table.write_table(some)


PARQUET = ExportFormat(
    name="parquet",
    summary="a table of uid, rank, gain, latent class and crawl",
    version=1,
    write=_write,
)
