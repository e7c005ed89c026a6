"""The formats in which a subset leaves, one a file."""

from clipcov_assets.export.subset_files.csv_table import CSV
from clipcov_assets.export.subset_files.datacomp import DATACOMP
from clipcov_assets.export.subset_files.export_format import ExportFormat
from clipcov_assets.export.subset_files.keys import KEYS
from clipcov_assets.export.subset_files.parquet import PARQUET
from clipcov_assets.export.subset_files.webdataset import WEBDATASET

FORMATS: dict[str, ExportFormat] = {one.name: one for one in (PARQUET, DATACOMP, KEYS, CSV, WEBDATASET)}
