"""Where failures are told: a file that grows, and a web address where one is given."""

import json
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import dagster as dg
from pydantic import Field

PATIENCE_SECONDS = 10


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
        except (URLError, ValueError, OSError) as error:
            # The address may hold a token: it is not repeated.
            return f"the webhook could not be reached ({getattr(error, 'reason', error)}): check CLIPCOV_ALERT_WEBHOOK"
