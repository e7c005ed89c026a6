"""Crawls of image-caption pairs become ClipCov subsets, CLIP checkpoints and scorecards."""

import warnings

import dagster as dg

# Multi-partition mappings and partitioned checks are marked beta and preview in Dagster 1.13. We rely on them
# knowingly, with tests; a warning at every start would only worry the reader.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
