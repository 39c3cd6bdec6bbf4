"""The page in a real browser: it draws every figure and complains of nothing."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from PIL import Image

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f'none of {", ".join(NAMES)}')

# Run by the browser in a copy of the page; the figures' sizes become its title.
PROBE = """<script>
window.addEventListener('load', () => {
  const images = [...document.images];
  const bad = images.filter(i => !i.complete || i.naturalWidth < 100);
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = `${images.length} images, ${bad.length} bad, overflow ${wide}`;
});
</script></body>"""


def browse(path, home, *flags: str) -> subprocess.CompletedProcess:
    command = [
        BROWSER, '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
        '--disable-background-networking', '--enable-logging=stderr',
        f'--user-data-dir={home}', *flags, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, 'HOME': str(home)},
    )  # fmt: skip


def complaints(done: subprocess.CompletedProcess) -> list[str]:
    """What the page's console said."""
    return [line for line in done.stderr.splitlines() if 'CONSOLE' in line]


def test_every_figure_is_drawn(whole_report, tmp_path):
    shot = tmp_path / 'shot.png'
    flags = ('--window-size=1280,3000', f'--screenshot={shot}')
    assert complaints(browse(whole_report, tmp_path, *flags)) == []
    with Image.open(shot) as image:
        assert image.size == (1280, 3000)
        assert len(image.convert('RGB').getcolors(2**24)) > 1000


@pytest.mark.parametrize('width', [1280, 500])
def test_figures_load_and_fit(whole_report, tmp_path, width):
    content = whole_report.read_text()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert content.count(policy) == 1
    probed = tmp_path / 'probed.html'
    content = content.replace(policy, f"{policy}; script-src 'unsafe-inline'")
    probed.write_text(content.replace('</body>', PROBE))
    done = browse(probed, tmp_path, f'--window-size={width},2000', '--dump-dom')
    assert complaints(done) == []
    assert '<title>11 images, 0 bad, overflow false</title>' in done.stdout


def test_the_page_runs_no_script(whole_report, tmp_path):
    probed = tmp_path / 'probed.html'
    probed.write_text(whole_report.read_text().replace('</body>', PROBE))
    done = browse(probed, tmp_path, '--dump-dom')
    assert '<title>run</title>' in done.stdout
    assert complaints(done)
