"""The images and videos among the files a user names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from gn_det.workbench.errors import UserError

# OpenCV would open text as a video of its characters, so that the name has to say it.
VIDEO_SUFFIXES = frozenset(
    {'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'}
)


@dataclass(frozen=True)
class Video:
    """A video that can be opened.

    Attributes:
        path: its file.
        fps: frames per second.
        frames: how many there are, as far as the file says; 0 if it does not.
    """

    path: Path
    fps: float
    frames: int

    def read(self) -> Iterator[np.ndarray]:
        """The frames, (H, W, 3) bytes in BGR; it ends at one that cannot be read."""
        capture = cv2.VideoCapture(str(self.path))
        try:
            while True:
                whole, frame = capture.read()
                if not whole:
                    return
                yield frame
        finally:
            capture.release()


def find_files(source: str | Path) -> list[Path]:
    """A file, or those directly in a folder by name; hidden ones are passed over.

    Raises:
        UserError: if there is no such file or folder, or the folder is empty.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f'no image, folder or video at {source.absolute()}')
    files = [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and not path.name.startswith('.')
    ]
    if not files:
        raise UserError(f'no files in {source.absolute()}')
    return files


class Unreadable(Exception):
    """A file is no image that OpenCV reads; the text says why."""


def read_image(path: Path) -> np.ndarray:
    """The (H, W, 3) bytes of an image in BGR.

    Raises:
        Unreadable: if the file is no image, damaged, or of a kind OpenCV cannot read.
    """
    try:
        # OpenCV, which reads as in training, fills what is cut off with grey.
        with Image.open(path) as image:
            image.load()
            kind = f'{image.format} of mode {image.mode}'
    except UnidentifiedImageError as error:
        if _read(path) is None:
            raise Unreadable('not an image, or a damaged one') from error
        raise Unreadable(
            f'Pillow does not know its kind, as of colours in floating point; {_AS_PNG}'
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable('not an image, or a damaged one') from error
    read = _read(path)
    if read is None:
        raise Unreadable(f'OpenCV does not read {kind}; {_AS_PNG}')
    return read


_AS_PNG = 'save it with 8 bits, as PNG'


def _read(path: Path) -> np.ndarray | None:
    try:
        return cv2.imread(str(path))
    except cv2.error:
        return None


def open_video(path: Path) -> Video | None:
    """A video, or None if its first frame cannot be read."""
    capture = cv2.VideoCapture(str(path))
    try:
        whole, _ = capture.read()
        fps = capture.get(cv2.CAP_PROP_FPS)
        frames = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    finally:
        capture.release()
    return Video(path, fps if fps > 0 else 25.0, frames) if whole else None
