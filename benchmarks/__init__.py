"""Ours and its peers side by side: `python -m benchmarks` measures and rewrites docs/performance.md.

A benchmark is one file of `works`: it prepares inputs, names the work that is timed and the floor that no
method goes below. Every measurement has a process of its own.
"""
