"""Image files, looked at before OpenCV decodes them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow's own limit, beyond which it takes a file for a decompression bomb.
MOST_PIXELS = 2 * int(1024**3 / 4 / 3)
# EXIF orientations that turn an image by a quarter; OpenCV turns it back.
_ORIENTATION, _QUARTER_TURNS = 0x0112, frozenset({5, 6, 7, 8})
_AS_PNG = 'save it with 8 bits, as PNG'


class Unreadable(Exception):
    """A file is no image that OpenCV reads; the text says why."""


def check_name(path: str | Path) -> None:
    """OpenCV ends the process at a file name that is not UTF-8.

    Raises:
        Unreadable: for such a name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise Unreadable('its name is not UTF-8; rename it') from error


def decoded_size(path: str | Path, turned: bool = True) -> tuple[int, int] | None:
    """Height and width at which an image is decoded, by its first bytes.

    Args:
        path: its file.
        turned: whether it is turned as its EXIF data say, which OpenCV does.

    Returns:
        The size; None if Pillow does not know the kind of file, which OpenCV may.

    Raises:
        Unreadable: if there is no such file, it is empty or damaged, or says that it
            is larger than can be held.
    """
    check_name(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Of a PNG without EXIF data at its head Pillow would decode all to look.
            if turned and (image.format != 'PNG' or 'exif' in image.info):
                turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
            else:
                turned = False
    except FileNotFoundError as error:
        raise Unreadable('there is no such file') from error
    except UnidentifiedImageError as error:
        if not os.path.getsize(path):
            raise Unreadable('the file is empty') from error
        return None
    except Image.DecompressionBombError as error:
        raise Unreadable(
            f'it says that it has more than {MOST_PIXELS} pixels'
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable('not an image, or a damaged one') from error
    return (width, height) if turned else (height, width)


def size_differs(found: tuple[int, int], said: tuple[int, int]) -> str:
    """Words for an image decoded at another (height, width) than a file says."""
    text = (
        f'it is {found[1]} x {found[0]} as it is decoded, and the annotation file says '
        f'{said[1]} x {said[0]}'
    )
    if found == said[::-1]:
        text += (
            ': EXIF data may turn it; write the sides as it is shown, with boxes and '
            'masks to match'
        )
    return f'{text}; correct width and height'


def read_image(path: str | Path) -> np.ndarray:
    """The (H, W, 3) bytes of an image in BGR, turned as its EXIF data say.

    Raises:
        Unreadable: if the file is no image, damaged, too large, or of a kind OpenCV
            cannot read.
    """
    known = decoded_size(path)
    kind = ''
    if known is not None:
        try:
            # OpenCV, which reads as in training, fills what is cut off with grey.
            with Image.open(path) as image:
                image.load()
                kind = f'{image.format} of mode {image.mode}'
        except (OSError, SyntaxError, ValueError) as error:
            raise Unreadable('not an image, or a damaged one') from error
    try:
        content = np.fromfile(path, np.uint8)
        read = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        read = None
    if known is None:
        raise Unreadable(
            'not an image, or a damaged one'
            if read is None
            else 'Pillow does not know its kind, as of colours in floating point; '
            f'{_AS_PNG}'
        )
    if read is None:
        raise Unreadable(f'OpenCV does not read {kind}; {_AS_PNG}')
    return read
