"""Where failures are told: a file that grows, and a web address where one is given."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import dagster as dg
from pydantic import Field

PATIENCE_SECONDS = 10
LONGEST = 600  # characters of a reason


class Alerts(dg.ConfigurableResource):
    """Tells people what failed."""

    file: str = Field(description="Text file to which every alert is added.")
    webhook: str = Field(
        default="",
        description='Address that every alert is posted to as {"text": ...}, which Slack, Mattermost and others '
        "understand; none where empty.",
    )

    def tell(self, words: str) -> str | None:
        """Write an alert to the file and to the address.

        Returns:
            What is wrong with the address, None where nothing is: the file has the alert in any case.
        """
        path = Path(self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{words}\n\n")
        return self._post(words) if self.webhook else None

    def _post(self, words: str) -> str | None:
        headers = {"Content-Type": "application/json"}
        try:
            request = Request(self.webhook, json.dumps({"text": words}).encode(), headers)
            with urlopen(request, timeout=PATIENCE_SECONDS):  # an address that the operator has set
                return None
        except (OSError, HTTPException, ValueError) as error:
            return f"the webhook could not be reached ({_fault(error)}): check CLIPCOV_ALERT_WEBHOOK"


def paragraph(what: str, reasons: Iterable[str], to_do: str, address: str) -> str:
    """An alert: what failed, why, what to do or what happens by itself, and where to look."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    why = [f"  why:  {' '.join(reason.split())[:LONGEST]}" for reason in reasons]
    return "\n".join([f"{when}: {what}", *why, f"  next: {to_do}", f"  see:  {address}"])


def _fault(error: Exception) -> str:
    """What is wrong, in the words of this machine alone: others may repeat the address, and it may hold a token."""
    if isinstance(error, HTTPError):
        return f"it answers with status {error.code}"
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, OSError) else error
    return getattr(cause, "strerror", None) or type(cause).__name__
