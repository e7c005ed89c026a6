"""The arithmetic of the project: arrays enter, rankings, models and measures leave. It knows no storage."""

from clipcov_assets.core.objective import objective
from clipcov_assets.core.paper import double_greedy
from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking
from clipcov_assets.core.selection import METHODS
from clipcov_assets.core.set_algebra import difference, intersection, union

__all__ = ["METHODS", "Pool", "Ranking", "difference", "double_greedy", "intersection", "objective", "union"]
