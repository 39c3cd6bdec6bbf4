"""What a page holds, read by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

_VOID = {'meta', 'link', 'img'}


class Page(HTMLParser):
    """Text, tags and notes of what is missing, by section title.

    Raises:
        AssertionError: for a tag that is not closed, or closes what is not open.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.missing: dict[str, list[str]] = {}
        self.images: dict[str, list[str]] = {}
        self._open: list[tuple[str, str | None]] = []
        self._section: str | None = None
        self.feed(path.read_text(encoding='utf-8'))
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == 'img' and self._section:
            self.images[self._section].append(attributes['src'])
        if tag not in _VOID:
            self._open.append((tag, attributes.get('class')))

    def handle_endtag(self, tag):
        assert self._open[-1][0] == tag, (tag, self._open)
        self._open.pop()
        if self._section and tag in ('th', 'td'):
            self.sections[self._section] += ' '

    def handle_data(self, data):
        tag, kind = self._open[-1] if self._open else (None, None)
        if tag == 'h2':
            self._section = data
            self.sections[data] = ''
            self.missing[data] = []
            self.images[data] = []
        elif self._section:
            self.sections[self._section] += data
            if kind == 'missing':
                self.missing[self._section].append(data)
