"""Reads delivery.toml: what its owner says of a delivery, where looking is not enough."""

import tomllib
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions

FILE = "delivery.toml"
LARGEST = 2**20  # bytes


def read_options(directory: Path, formats: Collection[str]) -> DeliveryOptions:
    """Return what `delivery.toml` in a folder says; nothing if there is none.

    Args:
        directory: The delivery's folder.
        formats: Names of the formats that there are.

    Raises:
        DeliveryError: It is no TOML, or has a key or a value that means nothing.
    """
    path = directory / FILE
    if not path.exists():
        return DeliveryOptions()
    allowed = [field.name for field in fields(DeliveryOptions)]
    try:
        with path.open("rb") as file:
            values = tomllib.loads(file.read(LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeliveryError(f"{path} is no readable TOML ({error}); its keys are {', '.join(allowed)}") from error
    for key, value in values.items():
        if key not in allowed:
            raise DeliveryError(f"{path}: unknown key {key!r}; allowed are {', '.join(allowed)}")
        if not isinstance(value, str) or not value:
            raise DeliveryError(f'{path}: {key} is {value!r}, but must be text, such as {key} = "..."')
    if values.get("format", None) not in (None, *formats):
        raise DeliveryError(f"{path}: unknown format {values['format']!r}; allowed are {', '.join(formats)}")
    return DeliveryOptions(**values)
