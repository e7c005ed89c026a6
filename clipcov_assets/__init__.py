"""Crawls of image-caption pairs become ClipCov subsets, CLIP checkpoints and scorecards."""
