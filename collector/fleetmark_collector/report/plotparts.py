"""What all plots share: what a figure is, colours, and texts that Plotly may have."""

import html
from typing import Any

from fleetmark_collector.report.labels import clean

Figure = dict[str, Any]
"""`id`, `title`, `note`, `wide`, and Plotly's `data` and `layout`."""

# Mid tones: readable on white as on near-black, and told apart by most colour-blind readers.
PALETTE = (
    "#3b7dd8", "#d9822b", "#2f9e76", "#b45cc0", "#c94f5d", "#7a8a2e", "#3aa3b5", "#8a6d5b",
)  # fmt: skip


def text(label: str) -> str:
    """Return a label as Plotly may have it: it would take tags in texts for its own."""
    return html.escape(clean(label))


def color_of(row: int) -> str:
    """Return a cell's colour, the same in all plots."""
    return PALETTE[row % len(PALETTE)]
