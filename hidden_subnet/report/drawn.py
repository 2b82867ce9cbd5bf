"""A figure as the content of a file, without the time at which it was drawn."""

import io

from matplotlib.figure import Figure

UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def drawn(figure: Figure, kind: str, dpi: int) -> bytes:
    """Return the figure as a file of this kind (png, svg, pdf); the same figure gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=dpi, metadata=UNDATED.get(kind))
    return content.getvalue()
