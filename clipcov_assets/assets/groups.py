"""The groups of the asset graph, in the order of the road, and what every asset shares."""

CRAWLS = "1_crawls"
POOL = "2_pool"
RANKINGS = "3_rankings"
SUBSETS = "4_subsets"
CHECKPOINTS = "5_checkpoints"
SCORECARDS = "6_scorecards"
EXPORTS = "7_exports"

OWNERS = ["team:data"]
# What uses the GPU shares one slot, whatever runs beside it (dagster.yaml, concurrency.pools).
GPU_POOL = "gpu"
