"""Untrusted text made safe for Markdown."""

import html
import re


def escape_markdown(text: str) -> str:
    """Make text fit for a line of Markdown: shown as it is, never acted on."""
    return re.sub(r"([\\`*|~\[\]])", r"\\\1", html.escape(text, quote=False))
