"""Names and files' contents as text that can be shown."""

from __future__ import annotations


def printable(text: str, keep: str = '') -> str:
    """Text with escapes for what has no shape: control characters, broken UTF-8.

    Args:
        text: any.
        keep: characters that stay nevertheless, such as line ends.
    """
    return ''.join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
