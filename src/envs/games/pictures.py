"""Pictures of the built-in games, uint8 [height, width, 3], for films of `render=True`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

SIDE = 400  # pixels
AGENT, OTHER, LINE = "#1f77b4", "#d62728", "#bbbbbb"
MOST_CELLS = 24  # in a row of a table; more cannot be read


def grid(size: int, agents: Sequence[tuple[int, int]], prey: Sequence[tuple[int, int]]) -> np.ndarray:
    """A board of size x size cells; agents, with their number, and prey stand in cells (row, column)."""
    page, draw, cell = _page(size, size)
    for k in range(size + 1):
        draw.line([(0, k * cell), (size * cell, k * cell)], fill=LINE)
        draw.line([(k * cell, 0), (k * cell, size * cell)], fill=LINE)
    for colour, places in ((OTHER, prey), (AGENT, agents)):
        for number, (row, column) in enumerate(places):
            x, y = (column + 0.5) * cell, (row + 0.5) * cell
            draw.ellipse([x - 0.4 * cell, y - 0.4 * cell, x + 0.4 * cell, y + 0.4 * cell], fill=colour)
            if colour == AGENT and cell >= 12:
                draw.text((x, y), str(number), fill="white", anchor="mm")
    return np.asarray(page)


def table(payoff: np.ndarray, taken: tuple[int, int] | None) -> np.ndarray | None:
    """A payoff of two agents [A_1, A_2], and which joint action was taken; None where it is too large to be read."""
    rows, columns = payoff.shape
    if max(rows, columns) > MOST_CELLS:
        return None
    page, draw, cell = _page(rows, columns)
    low, high = float(payoff.min()), float(payoff.max())
    for row in range(rows):
        for column in range(columns):
            share = (float(payoff[row, column]) - low) / (high - low) if high > low else 0.5
            shade = tuple(int(255 - share * (255 - full)) for full in (120, 190, 120))
            box = [column * cell, row * cell, (column + 1) * cell, (row + 1) * cell]
            here = (row, column) == taken
            draw.rectangle(box, fill=shade, outline=OTHER if here else LINE, width=4 if here else 1)
            if cell >= 24:
                middle = (column + 0.5) * cell, (row + 0.5) * cell
                draw.text(middle, f"{payoff[row, column]:g}", fill="black", anchor="mm")
    return np.asarray(page)


def battle(places: np.ndarray, health: np.ndarray, n_agents: int, size: tuple[float, float]) -> np.ndarray:
    """Units at places [K, 2] (x, y) of a map of `size`, agents first, then enemies; health [K], 0 for the dead. A unit
    is the larger the healthier it is."""
    page, draw, _ = _page(1, 1)
    scale = SIDE / max(size)
    most = max(float(health.max()), 1e-6)
    for k, ((x, y), points) in enumerate(zip(places.tolist(), health.tolist())):
        if points <= 0:
            continue
        across, down, radius = x * scale, SIDE - y * scale, 4 + 8 * points / most
        box = [across - radius, down - radius, across + radius, down + radius]
        draw.ellipse(box, fill=AGENT if k < n_agents else OTHER)
    return np.asarray(page)


def _page(rows: int, columns: int) -> tuple[Any, Any, float]:
    """(a white page, what draws on it, pixels of a cell)."""
    from PIL import Image, ImageDraw

    cell = max(4, SIDE // max(rows, columns))
    page = Image.new("RGB", (columns * cell + 1, rows * cell + 1), "white")
    return page, ImageDraw.Draw(page), cell
