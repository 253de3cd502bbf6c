"""An animation of the first environment: GIF by Pillow, MP4 by matplotlib and ffmpeg."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from utils.args import ConfigError

FORMATS = ("gif", "mp4")
MOST = 300  # frames; what is played after them is not in the film
LARGEST = 480  # pixels of the longer side
PER_SECOND = 5  # frames


def check_format(kind: str) -> None:
    """ConfigError where this machine cannot write films of this kind, "gif" or "mp4"."""
    from matplotlib.animation import FFMpegWriter

    if kind == "mp4" and not FFMpegWriter.isAvailable():
        raise ConfigError(
            "render_format=mp4 needs the program ffmpeg, which is not installed; install it (apt-get install ffmpeg), "
            "or give render_format=gif"
        )


class Film:
    """Frames, as they are played."""

    def __init__(self) -> None:
        self.frames: list[Image.Image] = []

    def add(self, picture: np.ndarray | None, text: str) -> None:
        """One more frame: a picture, uint8 [height, width, 3], or, where there is none, `text`."""
        if len(self.frames) == MOST:
            return
        image = _written(text) if picture is None else Image.fromarray(picture)
        image.thumbnail((LARGEST, LARGEST))
        self.frames.append(image)

    def save(self, folder: Path, kind: str) -> Path:
        """Write folder/render.gif or render.mp4; returns it. OSError where it cannot be written."""
        width, height = (2 * -(-max(size) // 2) for size in zip(*(frame.size for frame in self.frames)))
        frames = []
        for frame in self.frames:
            page = Image.new("RGB", (width, height), "white")
            page.paste(frame)
            frames.append(page)
        path = folder / f"render.{kind}"
        if kind == "gif":
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // PER_SECOND, loop=0)
        else:
            _save_mp4(frames, path)
        return path


def _save_mp4(frames: list[Image.Image], path: Path) -> None:
    from matplotlib.animation import FFMpegWriter
    from matplotlib.figure import Figure

    dots = 100  # an inch
    width, height = frames[0].size
    figure, writer = Figure(figsize=(width / dots, height / dots), dpi=dots), FFMpegWriter(fps=PER_SECOND)
    with writer.saving(figure, str(path), dots):
        for frame in frames:
            figure.clear()
            figure.figimage(np.asarray(frame))
            writer.grab_frame()


def _written(text: str) -> Image.Image:
    """A text as a picture."""
    ruler: Any = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, right, bottom = ruler.multiline_textbbox((8, 8), text)
    page = Image.new("RGB", (int(right) + 8, int(bottom) + 8), "white")
    ImageDraw.Draw(page).multiline_text((8, 8), text, fill="black")
    return page
