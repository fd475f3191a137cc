"""Draw the packages of amp.nft by import level, from the table in CONTRIBUTING.rst."""

import re
from pathlib import Path

ROW = re.compile(r"^   \* - (\d)\n     - (\w+)$", re.MULTILINE)
COLUMNS, WIDTH, HEIGHT, GAP, LEFT = 3, 160, 34, 8, 64  # boxes in a line; sizes in pixels


def draw_levels(table: Path, picture: Path) -> None:
    """Write an SVG with one box for each package, the highest level on top."""
    levels: dict[int, list[str]] = {}
    for level, package in ROW.findall(table.read_text(encoding="utf-8")):
        levels.setdefault(int(level), []).append(package)
    parts, y = [], GAP
    for level in sorted(levels, reverse=True):
        parts.append(f'<text x="0" y="{y + 22}" fill="#6b7480">level {level}</text>')
        for number, package in enumerate(levels[level]):
            x, top = LEFT + number % COLUMNS * (WIDTH + GAP), y + number // COLUMNS * (HEIGHT + GAP)
            parts.append(f'<rect x="{x}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#dbe7f3" stroke="#4c8dd6"/>')
            parts.append(f'<text x="{x + WIDTH // 2}" y="{top + 22}" text-anchor="middle" fill="#10243a">{package}</text>')
        y += -(-len(levels[level]) // COLUMNS) * (HEIGHT + GAP) + GAP
    width = LEFT + COLUMNS * (WIDTH + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" font-family="sans-serif" font-size="15">'
    picture.parent.mkdir(exist_ok=True)
    picture.write_text("\n".join([head, *parts, "</svg>\n"]), encoding="utf-8")
