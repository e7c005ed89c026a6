"""What has subsets, each as a row of assets: the selection methods that the scale compares, and their combinations."""

from clipcov_assets.core.selection import ABLATIONS, METHODS, Method
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.scales import SCALE

# Not only what the present scale compares: its past may hold more.
RANKED: dict[str, Method] = METHODS | ABLATIONS
COMPARED: dict[str, Method] = {name: RANKED[name] for name in SCALE.methods}
COMBINED: dict[str, Combination] = {one.name: one for one in SCALE.combinations}
KNOWN: dict[str, Method | Combination] = {**RANKED, **COMBINED}
# A combination has no ranking; in all else its assets are like a method's.
SELECTIONS: dict[str, Method | Combination] = {**COMPARED, **COMBINED}
