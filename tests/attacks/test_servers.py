"""Hostile hosts, one of a kind; `python -m tests.attacks.servers` has them all."""

from __future__ import annotations

from tests.attacks import servers

SOME = (
    "length b'-1'",
    "length b'2e5'",
    "length b'1099511627776'",
    "unasked part b'bytes 0-199999/200000'",
    "chunk b'-5'",
    "redirect to b'file:///etc/passwd'",
    'body dripped',
    'head dripped',
    'body without end',
    'continue without end',
)


def test_every_hostile_host_leads_to_the_next(monkeypatch):
    monkeypatch.setattr(servers.transfer, 'MOST_BYTES', servers.transfer.MOST_BYTES)
    assert servers.run(list(SOME)) == dict.fromkeys(SOME, 'next host')
