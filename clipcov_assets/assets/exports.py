"""Subsets leave as files, when a person asks for it."""

import dagster as dg
from pydantic import Field

from clipcov_assets.assets.groups import EXPORTS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.export.subset_files import FORMATS
from clipcov_assets.export.subset_files.export_format import ExportError, ExportOptions
from clipcov_assets.jobs.export import export_subset
from clipcov_assets.partitions import partitions_of
from clipcov_assets.provenance import (
    CONFIGURATION,
    PROVENANCE,
    configuration,
    content_version,
    latest_input,
    provenance_table,
)
from resources.export_shelf import ExportShelf, FinishedExport
from resources.lance_store import LanceStore

SHOWN_FILES = 10


class ExportConfig(dg.Config):
    """What can be set when an export is launched."""

    formats: list[str] = Field(
        default=["parquet"],
        description=f"Any of {', '.join(FORMATS)}; the description of the asset says what they are.",
    )
    pairs_per_shard: int = Field(default=ExportOptions.pairs_per_shard, description="Most pairs of a webdataset shard.")


def export_asset(method: str) -> dg.AssetsDefinition:
    """The exports of one method's subsets as an asset, one partition for each crawl and fraction."""

    @road_asset(
        name=f"{method}_export",
        partitions_def=partitions_of(method),
        deps=[f"{method}_subset"],
        group_name=EXPORTS,
        kinds={"parquet"},
        stage="export",
        method=method,
        code_version="1",
        description=(
            f"Files of {'the whole pool' if method == 'full' else f'the {method} subset'} for other tools; written "
            "only when you ask for it.\n\nMaterialize a partition and name the formats in the launchpad: "
            + "; ".join(f"`{one.name}`, {one.summary}" for one in FORMATS.values())
            + ". Each goes to a folder of its own with a `manifest.json`. An export that was broken off is gone on "
            "with; one of equal content that is there already is left as it is."
        ),
    )
    def export(
        context: dg.AssetExecutionContext, config: ExportConfig, store: LanceStore, exports: ExportShelf
    ) -> dg.MaterializeResult:
        try:
            finished = export_subset(
                store,
                exports,
                f"{method}_subset",
                str(context.partition_key),
                config.formats,
                ExportOptions(pairs_per_shard=config.pairs_per_shard),
                context.log.info,
            )
        except ExportError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        files = {one.manifest["format"]: one.manifest["files"] for one in finished}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_version(repr(files))),
            metadata={
                "pairs": finished[0].manifest["pairs"],
                "files": sum(one.files for one in finished),
                "bytes": sum(one.bytes for one in finished),
                **{f"path/{one.manifest['format']}": dg.MetadataValue.path(str(one.directory)) for one in finished},
                "first_files": _first_files(finished),
                CONFIGURATION: dg.MetadataValue.json(configuration()),
                PROVENANCE: provenance_table([latest_input(context, f"{method}_subset", context.partition_key)]),
            },
        )

    return export


def _first_files(finished: list[FinishedExport]) -> dg.TableMetadataValue:
    columns = {"format": "string", "name": "string", "bytes": "int", "sha256": "string"}
    records = [
        dg.TableRecord({"format": one.manifest["format"], **{name: file[name] for name in list(columns)[1:]}})
        for one in finished
        for file in one.manifest["files"][:SHOWN_FILES]
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema.from_name_type_dict(columns))
