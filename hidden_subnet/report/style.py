"""The look of a figure: sizes, colours, and texts in lines that fit."""

import textwrap
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours, which colour-blind readers can distinguish; brown for their yellow, too pale for a thin line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A4B1E")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#444444", "#8C8C8C"
PLAIN, BOLD = 0.53, 0.64
"""Mean width of a letter, in units of the size of the font; a little more than measured, so that no line is cut."""
NO_BREAK = "\N{NO-BREAK SPACE}"
LABEL_CHARACTERS = 20
"""Labels beside a panel are broken into lines of about this length."""


@dataclass(frozen=True)
class Style:
    """Sizes in inches and points."""

    width: float
    height: float
    """Height of a panel."""
    font: float
    line: float
    marker: float
    dpi: int


STYLES = {
    "paper": Style(width=3.4, height=1.75, font=7.5, line=1.2, marker=3.6, dpi=300),
    "talk": Style(width=6.4, height=3.2, font=15, line=2.6, marker=7.5, dpi=200),
    "screen": Style(width=6.4, height=3.2, font=10, line=1.8, marker=5.5, dpi=150),
}
PAPER = STYLES["paper"]


def settings_of(style: Style) -> dict[str, Any]:
    """Return matplotlib's settings for a style."""
    return {
        "font.size": style.font,
        "axes.labelsize": style.font,
        "axes.titlesize": style.font,
        "axes.linewidth": 0.08 * style.font,
        "xtick.labelsize": 0.93 * style.font,
        "ytick.labelsize": 0.93 * style.font,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "legend.frameon": False,
        "lines.linewidth": style.line,
        "lines.markersize": style.marker,
        # Text remains searchable and editable, and the same figure gives the same bytes.
        "svg.fonttype": "none",
        "svg.hashsalt": "hidden_subnet",
        "pdf.fonttype": 42,
    }


def wrapped(text: str, characters: float) -> str:
    """Return the text in lines of at most this length; it is not broken at no-break spaces, which become spaces."""
    return "\n".join(textwrap.wrap(text, round(characters))).replace(NO_BREAK, " ")
