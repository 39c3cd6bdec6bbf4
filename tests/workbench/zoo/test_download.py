"""Downloads in one process: hosts that fail in every way, the cache, the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import Digest
from gn_det.workbench.zoo import index, transfer
from gn_det.workbench.zoo.download import download, download_all
from gn_det.workbench.zoo.index import Weights
from gn_det.workbench.zoo.mirrors import addresses
from gn_det.workbench.zoo.sources import resolve
from tests.running import REPOSITORY
from tests.workbench.zoo.server import hashed_name, make_certificate, serve

CONTENT = os.urandom(300_000)
NAME = hashed_name(CONTENT)
OTHER = os.urandom(300_000)
BLOCK = 2**14


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pauses between tries, and no proxy of this machine in the way."""
    monkeypatch.setattr(transfer, '_PAUSE_S', 0.0)
    for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in (
        'GN_DET_OFFLINE',
        'GN_DET_MIRRORS',
        'REQUESTS_CA_BUNDLE',
        'CURL_CA_BUNDLE',
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def other():
    with serve() as state:
        yield state


def get(url, cache, **options):
    return download(url, cache, progress=False, **options)


def refusal(url, cache, **options):
    with pytest.raises(UserError) as error:
        get(url, cache, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


def left_in(cache):
    return sorted(os.listdir(cache)) if cache.exists() else []


class TestWholeFile:
    def test_it_comes_once_under_its_name(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT)
        for _ in range(2):
            assert get(url, cache) == cache / NAME
        assert (cache / NAME).read_bytes() == CONTENT
        assert left_in(cache) == [NAME]
        assert server.count(f'/{NAME}') == 1

    def test_default_is_the_hub_folder(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        path = get(server.add(f'/{NAME}', CONTENT), None)
        assert path == tmp_path / 'hub' / 'checkpoints' / NAME

    def test_empty_file(self, server, cache):
        name = hashed_name(b'')
        assert get(server.add(f'/{name}', b''), cache).read_bytes() == b''

    def test_without_length_or_range(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT, send_length=False, ranges=False)
        assert get(url, cache).read_bytes() == CONTENT

    @pytest.mark.parametrize('status', [301, 302, 307, 308])
    def test_redirect(self, server, other, cache, status):
        there = other.add('/real', CONTENT)
        url = server.add(f'/{NAME}', status=status, location=there)
        assert get(url, cache) == cache / NAME

    def test_name_without_a_hash_is_kept_apart_by_its_address(self, server, cache):
        paths = [
            get(server.add(f'/{run}/model_final.pkl', run.encode()), cache)
            for run in ('a', 'b')
        ]
        assert [path.read_bytes() for path in paths] == [b'a', b'b']
        assert all(path.name.startswith('model_final.url') for path in paths)

    def test_nothing_is_shown_off_a_terminal(self, server, cache, capfd):
        download(server.add(f'/{NAME}', CONTENT), cache, progress=True)
        assert capfd.readouterr() == ('', '')

    def test_one_that_fails_does_not_keep_the_next_from_coming(self, server, cache):
        sources = [
            server.address + '/gone-00112233.pth',
            server.add(f'/{NAME}', CONTENT),
        ]
        with pytest.raises(UserError, match=r'gone-00112233\.pth.* answered 404'):
            list(download_all(sources, cache, progress=False))
        assert (cache / NAME).is_file()
        with pytest.raises(UserError, match='for one file'):
            list(download_all(sources, cache, sha256='0' * 64))


class TestDigest:
    @pytest.mark.parametrize(
        ('name', 'expected'),
        [
            (
                'mask_rcnn_r50_fpn_gn-all_2x_coco_20200206-8eee02a6.pth',
                'sha256 8eee02a6',
            ),
            ('resnet50_gn_thangvubk-ad1730dd.pth', 'sha256 ad1730dd'),
            ('model_final_dc5d9e.pkl', 'md5 dc5d9e'),
            ('model_0039999_e76410.pkl', 'md5 e76410'),
            ('model_final.pkl', 'None'),
            ('R-50-GN.pkl', 'None'),
            ('model-20200206.pth', 'None'),
            ('model-12345678.pth', 'sha256 12345678'),
        ],
    )
    def test_in_names(self, name, expected):
        assert str(Digest.from_name(name)) == expected

    def test_whole_digest_outranks_the_name(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT)
        wrong = 8 * NAME[-12:-4]
        assert 'sent a wrong file' in refusal(url, cache, sha256=wrong)
        right = hashlib.sha256(CONTENT).hexdigest().upper()
        assert get(url, cache, sha256=right)

    def test_md5(self, server, cache):
        digest = hashlib.md5(CONTENT).hexdigest()
        url = server.add('/model_final.pkl', CONTENT)
        assert get(url, cache, md5=digest)
        named = server.add(f'/model_final_{digest[:6]}.pkl', OTHER)
        assert f'not {digest[:6]}' in refusal(named, cache)

    def test_every_one_known_is_checked(self, server, cache):
        url = server.add('/model_final.pkl', CONTENT)
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        md5 = hashlib.md5(CONTENT).hexdigest()
        assert 'sent a wrong file (md5' in refusal(
            url, cache, sha256=sha256, md5='0' * 32
        )
        named = server.add('/model-00112233.pth', CONTENT)
        assert 'not 00112233' in refusal(named, cache, md5=md5[:6])
        assert get(url, cache, sha256=sha256, md5=md5)

    @pytest.mark.parametrize('value', ['', 'abc', 'xyzxyzxy', '0' * 65, """ """])
    def test_what_is_none(self, server, cache, value):
        url = server.add(f'/{NAME}', CONTENT)
        assert 'is no sha256' in refusal(url, cache, sha256=value)

    def test_wrong_file_leaves_nothing_and_names_its_host(self, server, cache):
        text = refusal(server.add(f'/{NAME}', OTHER), cache)
        assert f'{server.host}: sent a wrong file' in text
        assert hashlib.sha256(OTHER).hexdigest()[:8] in text
        assert left_in(cache) == []

    def test_wrong_file_behind_a_redirect_names_both_hosts(self, server, other, cache):
        url = server.add(f'/{NAME}', status=302, location=other.add('/x', OTHER))
        assert f'{server.host}: led to {other.host}, which sent a' in refusal(
            url, cache
        )

    def test_right_file_of_a_mirror_is_used_instead(self, server, other, cache, caplog):
        url = server.add(f'/{NAME}', CONTENT)
        other.add(f'/{NAME}', OTHER)
        mirror = f'{server.address}/={other.address}/'
        assert get(url, cache, mirrors=[mirror]).read_bytes() == CONTENT
        assert f'{other.host}: sent a wrong file' in caplog.text
        assert left_in(cache) == [NAME]

    def test_digits_that_are_few_are_called_so(self, server, cache, caplog):
        whole = hashlib.sha256(CONTENT).hexdigest()
        get(server.add(f'/{NAME}', CONTENT), cache)
        assert f'only 32 bits of its sha256; the whole is sha256 {whole}' in caplog.text
        caplog.clear()
        get(server.add('/a.pth', CONTENT), cache, sha256=whole)
        assert caplog.text == ''

    def test_damaged_copy_in_the_cache_is_replaced(self, server, cache, caplog):
        cache.mkdir()
        (cache / NAME).write_bytes(CONTENT[:-1] + b'x')
        assert get(server.add(f'/{NAME}', CONTENT), cache).read_bytes() == CONTENT
        assert caplog.text.count('is not used') == 1


class TestHosts:
    @pytest.mark.parametrize('status', [403, 404, 500, 503])
    def test_answer_that_is_no_file(self, server, other, cache, status):
        url = server.add(f'/{NAME}', CONTENT)
        other.add(f'/{NAME}', b'sorry', status=status)
        mirror = f'{server.address}/={other.address}/'
        assert get(url, cache, mirrors=[mirror])
        assert other.count(f'/{NAME}') == 1

    def test_every_host_and_reason_is_in_one_line(self, server, other, cache):
        url = server.add(f'/{NAME}', status=404)
        other.add(f'/{NAME}', status=500)
        mirror = f'{server.address}/={other.address}/'
        text = refusal(url, cache, mirrors=[mirror])
        assert f'{other.host}: answered 500' in text
        assert f'{server.host}: answered 404' in text
        assert '--mirror FROM=TO' in text
        assert str(cache / NAME) in text
        assert left_in(cache) == []

    def test_no_server(self, cache):
        with serve() as gone:
            url = f'{gone.address}/{NAME}'
        assert 'refuses the connection' in refusal(url, cache)

    def test_unknown_host(self, cache):
        url = f'http://no-such-host.invalid/{NAME}'
        assert 'no-such-host.invalid: unknown host, or no network' in refusal(
            url, cache
        )

    def test_circle_of_redirects(self, server, cache):
        url = f'{server.address}/{NAME}'
        server.add(f'/{NAME}', status=302, location=url)
        assert 'leads in a circle' in refusal(url, cache)

    @pytest.mark.parametrize(
        ('faults', 'reason'),
        [
            (dict(content_type='text/html; charset=utf-8'), 'sent a web page'),
            (dict(content_type='Text/HTML'), 'sent a web page'),
            (dict(content_encoding='gzip'), 'compressed'),
            (dict(send_length=False), 'how long the file is'),
        ],
    )
    def test_what_cannot_be_told_without_a_digest(self, server, cache, faults, reason):
        assert reason in refusal(server.add('/a.pth', CONTENT, **faults), cache)
        assert left_in(cache) == []

    @pytest.mark.parametrize('ranges', [True, False])
    def test_nothing_is_no_file_without_a_digest(self, server, cache, ranges):
        url = server.add('/a.pth', b'', ranges=ranges)
        assert 'sent an empty file' in refusal(url, cache)
        assert left_in(cache) == []

    def test_part_that_nobody_asked_for(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT, status=206)
        assert 'sent a part of the file that nobody' in refusal(url, cache)
        assert left_in(cache) == []

    def test_identity_in_capitals_is_not_compressed(self, server, cache):
        assert get(server.add('/a.pth', CONTENT, content_encoding='Identity'), cache)

    def test_redirect_to_what_is_no_address(self, server, cache):
        url = server.add(f'/{NAME}', status=302, location='http://[bad/x')
        assert 'or leads to none' in refusal(url, cache)

    @pytest.mark.parametrize('timeout_s', [0, -1, float('nan'), float('inf'), 1e300])
    def test_silence_of_no_length(self, cache, timeout_s):
        text = refusal(f'http://127.0.0.1:9/{NAME}', cache, timeout_s=timeout_s)
        assert text.startswith('--timeout: expected seconds')

    def test_password_is_not_shown(self, server, cache):
        server.add('/a.pth', CONTENT, drops=-1, drop_after=BLOCK)
        url = f'http://user:geheim@{server.host}/a.pth'
        texts = [
            refusal(url, cache, offline=True),
            refusal(url, cache),
            refusal('http://user:geheim@[::1/a.pth', cache),
            refusal(f'http://user:geheim@{server.host}/folder/', cache),
        ]
        assert not [text for text in texts if 'geheim' in text]

    def test_stall_before_an_answer(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT, stalls=9, drop_after=0, send_length=True)
        text = refusal(url, cache, timeout_s=0.2)
        assert 'was silent for 0.2 s' in text

    def test_mirrors_of_openmmlab(self):
        path = 'mmdetection/v2.0/gn/a/a-8eee02a6.pth'
        old, new = 'https://download.openmmlab.com/', 'https://mmassets.onedl.ai/'
        assert addresses(old + path) == [old + path, new + path]
        assert addresses(new + path) == [new + path, old + path]
        assert addresses(f'{old}other/x.pth') == [f'{old}other/x.pth']

    def test_mirrors_of_the_user_come_first(self, monkeypatch):
        monkeypatch.setenv(
            'GN_DET_MIRRORS', 'https://a/=https://c/ https://z/=http://y/'
        )
        assert addresses('https://a/x.pth', ['https://a/=http://b/']) == [
            'http://b/x.pth',
            'https://c/x.pth',
            'https://a/x.pth',
        ]

    @pytest.mark.parametrize('mirror', ['b', 'https://b/', '=https://b/', 'a=b'])
    def test_what_is_no_mirror(self, mirror):
        with pytest.raises(UserError, match='is no mirror'):
            addresses('https://a/x.pth', [mirror])
        with pytest.raises(UserError, match='is no address'):
            addresses('https://a/x.pth', ['https://a/=https://[b/'])


class TestCertificates:
    @pytest.fixture
    def mirrored(self, server):
        return server.add(f'/{NAME}', CONTENT)

    def test_good_one(self, tmp_path, cache, monkeypatch):
        pair = make_certificate(tmp_path, days=9)
        monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(pair[0]))
        with serve(pair) as secure:
            assert get(secure.add(f'/{NAME}', CONTENT), cache)

    @pytest.mark.parametrize(
        ('days', 'known', 'reason'),
        [(-1, True, 'certificate has expired'), (9, False, 'self-signed certificate')],
    )
    def test_bad_one_is_never_passed_over(
        self, tmp_path, cache, monkeypatch, server, days, known, reason
    ):
        pair = make_certificate(tmp_path, days=days)
        if known:
            monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(pair[0]))
        with serve(pair) as secure:
            url = secure.add(f'/{NAME}', CONTENT)
            text = refusal(url, cache)
            assert f'{secure.host}: has a bad certificate ({reason})' in text
            assert 'a certificate is never passed over' in text
            assert '--mirror' in text
            assert not secure.requests
            assert left_in(cache) == []
            server.add(f'/{NAME}', CONTENT)
            trusted = f'{server.address}/{NAME}'
            mirror = f'{server.address}/={secure.address}/'
            assert get(trusted, cache, mirrors=[mirror]).read_bytes() == CONTENT

    def test_no_redirect_leaves_the_encryption(
        self, tmp_path, cache, monkeypatch, server
    ):
        pair = make_certificate(tmp_path, days=9)
        monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(pair[0]))
        plain = server.add(f'/{NAME}', CONTENT)
        with serve(pair) as secure:
            url = secure.add(f'/{NAME}', status=302, location=plain)
            assert 'without encryption' in refusal(url, cache)
        assert not server.requests

    def test_what_is_not_tls(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT).replace('http:', 'https:')
        assert 'no secure connection' in refusal(url, cache)


class TestResume:
    def test_broken_connection_is_taken_up_again(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT, drops=5, drop_after=3 * BLOCK)
        assert get(url, cache).read_bytes() == CONTENT
        asked = [request.headers.get('Range') for request in server.requests]
        assert asked == [None, *(f'bytes={n * 3 * BLOCK}-' for n in range(1, 6))]

    def test_stall_in_the_middle_is_taken_up_again(self, server, cache):
        url = server.add(f'/{NAME}', CONTENT, stalls=1, drop_after=6 * BLOCK)
        assert get(url, cache, timeout_s=0.2).read_bytes() == CONTENT

    def test_host_that_always_breaks_off_in_the_same_place(self, server, cache):
        url = server.add(
            f'/{NAME}', CONTENT, drops=-1, drop_after=6 * BLOCK, ranges=False
        )
        text = refusal(url, cache)
        assert f'broke off after {6 * BLOCK} bytes' in text
        assert server.count(f'/{NAME}') == 4
        assert f'{NAME}.part' in left_in(cache)
        assert NAME not in left_in(cache)

    def test_mirror_goes_on_from_what_the_first_host_sent(self, server, other, cache):
        other.add(f'/{NAME}', CONTENT, drops=-1, drop_after=6 * BLOCK, ranges=False)
        url = server.add(f'/{NAME}', CONTENT)
        mirror = f'{server.address}/={other.address}/'
        assert get(url, cache, mirrors=[mirror]).read_bytes() == CONTENT
        assert server.requests[0].headers['Range'] == f'bytes={6 * BLOCK}-'
        assert left_in(cache) == [NAME]

    @pytest.mark.parametrize('ranges', [True, False])
    def test_left_by_an_earlier_run(self, server, cache, ranges):
        cache.mkdir()
        (cache / f'{NAME}.part').write_bytes(CONTENT[:1234])
        url = server.add(f'/{NAME}', CONTENT, ranges=ranges)
        assert get(url, cache).read_bytes() == CONTENT
        assert server.requests[0].headers['Range'] == 'bytes=1234-'
        assert left_in(cache) == [NAME]

    @pytest.mark.parametrize(
        'left',
        [OTHER[:1234], OTHER, CONTENT + b'more', b''],
        ids=['wrong', 'wrong whole', 'too long', 'empty'],
    )
    def test_left_over_that_does_not_fit(self, server, cache, left):
        cache.mkdir()
        (cache / f'{NAME}.part').write_bytes(left)
        assert get(server.add(f'/{NAME}', CONTENT), cache).read_bytes() == CONTENT
        assert left_in(cache) == [NAME]

    def test_whole_left_over_needs_no_host(self, cache):
        cache.mkdir()
        (cache / f'{NAME}.part').write_bytes(CONTENT)
        assert get(f'http://no-such-host.invalid/{NAME}', cache) == cache / NAME

    @pytest.mark.parametrize('fault', [dict(shift=7), dict(excess=5)])
    def test_range_that_does_not_fit_is_not_joined(self, server, cache, fault):
        url = server.add(f'/{NAME}', CONTENT, drops=1, drop_after=3 * BLOCK, **fault)
        assert get(url, cache).read_bytes() == CONTENT

    def test_beginning_of_another_file_is_fetched_anew(self, server, cache):
        url = server.add(f'/{NAME}', OTHER, drops=-1, drop_after=BLOCK, ranges=False)
        refusal(url, cache)
        server.add(f'/{NAME}', CONTENT)
        assert get(url, cache).read_bytes() == CONTENT

    def test_without_a_digest_it_starts_again(self, server, cache):
        url = server.add('/a.pth', CONTENT, drops=1, drop_after=BLOCK)
        assert get(url, cache).read_bytes() == CONTENT
        assert 'Range' not in server.requests[1].headers

    def test_link_in_place_of_the_partial_file_is_not_followed(
        self, server, cache, tmp_path
    ):
        precious = tmp_path / 'precious'
        precious.write_bytes(CONTENT[:100])
        cache.mkdir()
        (cache / f'{NAME}.part').symlink_to(precious)
        path = get(server.add(f'/{NAME}', CONTENT), cache)
        assert path.read_bytes() == CONTENT
        assert not path.is_symlink()
        assert precious.read_bytes() == CONTENT[:100]


class TestOffline:
    @pytest.fixture(params=['argument', 'variable'])
    def offline(self, request, monkeypatch):
        if request.param == 'variable':
            monkeypatch.setenv('GN_DET_OFFLINE', '1')
        return dict(offline=request.param == 'argument')

    def test_good_copy_is_used(self, server, cache, offline):
        url = f'{server.address}/{NAME}'
        cache.mkdir()
        (cache / NAME).write_bytes(CONTENT)
        assert get(url, cache, **offline) == cache / NAME
        assert not server.requests

    @pytest.mark.parametrize('copy', [None, OTHER], ids=['none', 'damaged'])
    def test_otherwise_it_says_what_is_missing_where(
        self, server, cache, offline, copy
    ):
        url = server.add(f'/{NAME}', CONTENT)
        cache.mkdir()
        if copy:
            (cache / NAME).write_bytes(copy)
        text = refusal(url, cache, **offline)
        assert text.startswith(f'offline, and there is no good copy of {NAME}')
        assert str(cache) in text
        assert url in text
        assert not server.requests

    def test_variable_zero_is_off(self, server, cache, monkeypatch):
        monkeypatch.setenv('GN_DET_OFFLINE', '0')
        assert get(server.add(f'/{NAME}', CONTENT), cache)


class TestProxy:
    def test_it_is_used(self, server, cache, monkeypatch):
        server.add(f'/{NAME}', CONTENT)
        monkeypatch.setenv('HTTP_PROXY', server.address)
        url = f'http://zoo.invalid/{NAME}'
        assert get(url, cache).read_bytes() == CONTENT
        assert server.requests[0].path == url

    def test_no_proxy_is_heeded(self, server, cache, monkeypatch):
        monkeypatch.setenv('HTTP_PROXY', 'http://127.0.0.1:1')
        monkeypatch.setenv('NO_PROXY', '127.0.0.1')
        assert get(server.add(f'/{NAME}', CONTENT), cache)

    def test_one_that_does_not_answer(self, server, cache, monkeypatch):
        monkeypatch.setenv('HTTP_PROXY', 'http://127.0.0.1:1')
        monkeypatch.delenv('NO_PROXY', raising=False)
        assert 'proxy' in refusal('http://zoo.invalid/a-00112233.pth', cache)


class TestDisk:
    def test_disk_that_fills_up_on_the_way(self, server, cache, monkeypatch):
        import resource
        import signal

        url = server.add(f'/{NAME}', CONTENT)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
        try:
            text = refusal(url, cache)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert os.strerror(errno.EFBIG) in text
        assert 'the next call goes on from it' in text
        assert NAME not in left_in(cache)
        assert get(url, cache).read_bytes() == CONTENT
        assert 'Range' in server.requests[1].headers

    @pytest.mark.parametrize('step', ['fsync', 'replace'])
    def test_disk_that_fails_at_the_end(self, server, cache, monkeypatch, step):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            assert 'No space left' in refusal(server.add(f'/{NAME}', CONTENT), cache)
        assert NAME not in left_in(cache)

    def test_file_and_its_name_are_on_the_disk_at_the_end(
        self, server, cache, monkeypatch
    ):
        synced = []
        monkeypatch.setattr(os, 'fsync', lambda fd: synced.append(os.fstat(fd).st_ino))
        path = get(server.add(f'/{NAME}', CONTENT), cache)
        assert synced == [path.stat().st_ino, cache.stat().st_ino]

    def test_dest_is_a_file(self, server, tmp_path):
        (tmp_path / 'file').touch()
        url = server.add(f'/{NAME}', CONTENT)
        assert 'name the folder' in refusal(url, tmp_path / 'file')
        assert 'cannot write in' in refusal(url, tmp_path / 'file' / 'below')

    def test_folder_where_the_file_should_be(self, server, cache):
        (cache / NAME).mkdir(parents=True)
        assert 'is a folder' in refusal(server.add(f'/{NAME}', CONTENT), cache)

    def test_folder_where_the_partial_file_should_be(self, server, cache):
        (cache / f'{NAME}.part').mkdir(parents=True)
        text = refusal(server.add(f'/{NAME}', CONTENT), cache)
        assert f'{NAME}.part' in text

    def test_home_of_nobody(self, server):
        url = server.add(f'/{NAME}', CONTENT)
        assert 'no such user' in refusal(url, '~no-such-user/x')

    def test_what_the_system_refuses_names_the_file(self, cache, monkeypatch):
        # Root may go everywhere, so the system is played.
        def refuse(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(Path, 'is_dir', refuse)
        text = refusal(f'http://127.0.0.1:9/{NAME}', cache)
        assert text == f'cannot use {cache / NAME}: Permission denied'

    def test_folder_that_cannot_be_made(self, server):
        url = server.add(f'/{NAME}', CONTENT)
        assert 'cannot write in /proc/none' in refusal(url, '/proc/none')

    def test_folder_that_may_not_be_written(self, server, cache, monkeypatch):
        # Root may write everywhere, so the lock refuses for the system.
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(FileLock, 'acquire', refuse)
        url = server.add(f'/{NAME}', CONTENT)
        assert f'cannot write in {cache}: Permission denied' in refusal(url, cache)


class TestNames:
    def test_of_the_zoo(self):
        found = resolve('mask-rcnn_r50_fpn_gn-all_2x_coco')
        assert found.url.endswith('_20200206-8eee02a6.pth')
        assert found.digests == (Digest('sha256', '8eee02a6'),)
        assert found.file_name == found.url.rpartition('/')[2]

    def test_of_the_zoo_whose_files_are_all_called_the_same(self, monkeypatch):
        weights = Weights('https://a.example/1/model_final.pkl', 'detectron')
        model = SimpleNamespace(name='mask-rcnn_detectron', weights=weights)
        monkeypatch.setattr(index, 'find', lambda name: model)
        found = resolve('mask-rcnn_detectron', md5='00112233')
        assert found.file_name == 'mask-rcnn_detectron.pkl'
        assert found.digests == (Digest('md5', '00112233'),)

    def test_of_mmengine(self):
        found = resolve('open-mmlab://detectron/resnet50_gn')
        assert found.url.endswith('/pretrain/third_party/resnet50_gn-9186a21c.pth')
        assert resolve('openmmlab://detectron/resnet50_gn') == found
        assert len(addresses(found.url)) == 2

    @pytest.mark.parametrize(
        ('source', 'text'),
        [
            ('mask-rcnn_r50_fpn_gn_2x_coco', 'mask-rcnn_r50_fpn_gn-all_2x_coco'),
            ('open-mmlab://detectron/resnet50gn', 'detectron/resnet50_gn'),
            ('ftp://a/b.pth', 'only http://'),
            ('https://a.example/folder/', 'does not end in the name of a file'),
            ('http:///x.pth', 'does not end in the name of a file'),
            ('http://[::1/a.pth', 'is no address'),
            ('http://127.0.0.1:port/a.pth', 'is no address'),
            (f'http://127.0.0.1:9/{"a" * 250}.pth', 'longer than the 240 bytes'),
            ('http://127.0.0.1:9/a%00b.pth', r"'a\x00b.pth' is no name for a file"),
            ('http://127.0.0.1:9/a%0ab.pth', r"'a\nb.pth' is no name for a file"),
            (__file__, 'is a file of this machine'),
        ],
    )
    def test_that_lead_nowhere(self, source, text, cache):
        assert text in refusal(source, cache)
        assert left_in(cache) == []


def test_config_of_the_zoo_is_a_name_where_it_is_a_file_too(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
    assert Path(config).is_file()
    assert resolve(config) == resolve('mask-rcnn_r50_fpn_gn-all_2x_coco')


def test_python_verifies_certificates_by_default():
    """What all of the above stands on."""
    assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
