"""The report in a real browser, without a network: it opens, draws and turns, and has nothing to complain of."""

import shutil
import time
from io import BytesIO

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from matplotlib.image import imread
from small_runs import cluster, run

from amp.nft.report import report

webdriver = pytest.importorskip("selenium.webdriver", reason="uv run --group screens")
Select = pytest.importorskip("selenium.webdriver.support.ui").Select
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    "--headless=new --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --window-size=1300,1000"
).split()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"),
]


@pytest.fixture
def browser(tmp_path):
    """Chromium, of which every request to a network would fail and be noticed."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in [*SWITCHES, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.set_script_timeout(120)
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield browser
    browser.quit()


def open_page(browser, path):
    """Load a page and wait for its view, in s at most 120."""
    browser.get(path.as_uri())
    end = time.monotonic() + 120
    while not browser.execute_script("return document.querySelector('.scene canvas') !== null"):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.2)


OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll(".panels svg")) {
  const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3) found.push(a + " and " + b);
  }));
}
return found;
"""


def colours(browser):
    """Count the colours in the view, without that of the background."""
    picture = imread(BytesIO(browser.find_element("css selector", ".scene").screenshot_as_png))
    return len(np.unique((picture[60:, : picture.shape[1] // 2, :3] * 15).astype(int).reshape(-1, 3), axis=0))


def background(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def of_size(n):
    """Targets of 3, 13 and about 100 000 atoms."""
    if n == 3:
        return Atoms("Pt3", [[0, 0, 0], [2.6, 0, 0], [0, 2.7, 0.3]])
    if n == 13:
        return cluster()
    block = bulk("Pt", a=3.99, cubic=True) * (29, 29, 30)
    block.pbc = False
    block.rattle(0.1, seed=1)
    return block


@pytest.mark.parametrize("n", [3, 13, 100_000])
def test_the_report_opens_draws_and_turns_offline(tmp_path, monkeypatch, browser, n):
    monkeypatch.chdir(tmp_path)
    run(target_image=of_size(n), parent_calc=EMT(), max_iterations=1, threshold=None)
    report("al-training", figures="figures")
    assert all(path.stat().st_size < 2e6 for path in (tmp_path / "figures").iterdir())
    page = tmp_path / "report.html"
    assert page.stat().st_size < 20e6
    shades = {}
    for scheme in ("light", "dark") if n == 13 else ("dark",):
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        open_page(browser, page)
        time.sleep(2.0)
        shades[scheme] = background(browser)
        assert colours(browser) > 10
    assert len(set(shades.values())) == len(shades)
    for width in (480, 1300):
        browser.set_window_size(width, 1000)
        for name in ("elements", "chunks, by iteration", "uncertainty δ (eV/Å)"):
            Select(browser.find_element("css selector", ".choices select")).select_by_visible_text(name)
            time.sleep(2.0)
            assert colours(browser) > 2, name
            assert browser.find_element("css selector", "ul.legend").is_displayed() == (name == "elements")
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script(OVERLAPS) == []
    camera = "return JSON.stringify(document.querySelector('.scene')._fullLayout.scene._scene.getCamera().eye)"
    before = browser.execute_script(camera)
    view = browser.find_element("css selector", ".scene")
    webdriver.ActionChains(browser).move_to_element(view).click_and_hold().move_by_offset(120, 60).release().perform()
    time.sleep(2.0)
    assert browser.execute_script(camera) != before
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
