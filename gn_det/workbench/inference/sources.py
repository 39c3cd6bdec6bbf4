"""The images and videos among the files a user names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

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
