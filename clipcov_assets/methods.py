"""The selection methods that the scale compares: each is a row of assets."""

from clipcov_assets.core.selection import ABLATIONS, METHODS, Method
from clipcov_assets.scales import SCALE

COMPARED: dict[str, Method] = {name: (METHODS | ABLATIONS)[name] for name in SCALE.methods}
