"""The picture of the console in the documents, drawn from a screen of made-up GPUs.

python -m tests.console.picture writes docs/images/console.svg.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from esnode.console.cells import width
from esnode.console.frame import frame
from esnode.console.view import View

from . import scenes

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "console.svg"
#: Pixels of a cell.
WIDE, HIGH = 8, 18
COLUMNS, LINES = 110, 28
COLORS = {
    **dict.fromkeys(("bold", "title", "trend", "green"), "#5f5"),
    "yellow": "#cc3",
    "red": "#f66",
    "keys": "#6ff",
    "dim": "#2a2",
}


def picture() -> str:
    found = scenes.seen("busy")
    assert found.status is not None
    found.status = scenes.replace(found.status, hostname="gpu-node-01")
    view = View(screen="2", width=COLUMNS, height=LINES, at=3, back=("0",))
    size = f"{COLUMNS * WIDE + 16} {LINES * HIGH + 16}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img"'
        ' font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
        "<title>The console's screen of GPUs and power</title>",
        '<rect width="100%" height="100%" rx="6" fill="#020"/>',
    ]
    for row, line in enumerate(frame(scenes.scene(found, view)).lines):
        column = 0
        for text, style in line:
            cells = width(text)
            x, y = 8 + column * WIDE, 8 + row * HIGH
            names = style.split()
            color = next((COLORS[name] for name in names if name in COLORS), "#3d3")
            if "chosen" in names:
                parts.append(
                    f'<rect x="{x}" y="{y}" width="{cells * WIDE}" height="{HIGH}" fill="{color}"/>'
                )
                color = "#020"
            if text.strip():
                parts.append(
                    f'<text x="{x}" y="{y + 13}" fill="{color}" textLength="{cells * WIDE}"'
                    f' xml:space="preserve">{escape(text)}</text>'
                )
            column += cells
    return "\n".join([*parts, "</svg>"]) + "\n"


def write() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture())


if __name__ == "__main__":
    write()
