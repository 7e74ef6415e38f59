"""The page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from mlkd.reporting.build import write_report
from mlkd.reporting.collect import collect
from mlkd.reporting.compare import group_seeds

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver on the PATH"
    ),
    pytest.mark.enable_socket,  # selenium talks to the driver over a local port
]

OBSERVER = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((e) => e.value)))
  .observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="module")
def page(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(collect([str(sweep)]), tmp_path_factory.mktemp("report"), "tiny sweep")


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                 "--window-size=1280,1600"):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = Chrome(options, ChromeService(executable_path=DRIVER))
    yield opened
    opened.quit()


@pytest.fixture
def browser(driver: Chrome, page: Path) -> Chrome:
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVER})
    driver.get(page.as_uri())
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#curves .trace"))
    return driver


def wait(driver: Chrome, ready: Callable[[], Any]) -> Any:
    return WebDriverWait(driver, 20).until(lambda _: ready())


def point(browser: Chrome, number: int) -> Any:
    return browser.find_elements(By.CSS_SELECTOR, "#front .scatterlayer .point")[number]


def text(browser: Chrome, identity: str) -> str:
    return browser.find_element(By.ID, identity).text


def column(browser: Chrome, head: str) -> list[str]:
    heads = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#cells thead th")]
    rows = browser.find_elements(By.CSS_SELECTOR, "#cells tbody tr:not([hidden])")
    at = heads.index(head)
    return [row.find_elements(By.CSS_SELECTOR, "th,td")[at].text for row in rows]


def test_it_loads_without_errors_requests_or_shifts(browser: Chrome) -> None:
    assert browser.get_log("browser") == []
    requests = [e["message"] for e in browser.get_log("performance")]
    asked = [m for m in requests if '"Network.requestWillBeSent"' in m]
    assert asked  # the page itself, from disk
    assert not [m for m in asked if '"url":"http' in m]
    assert sum(browser.execute_script("return window.shifts")) == 0
    assert text(browser, "summary") == "7 cells: 5 finished, 1 failed, 1 missing"


def test_every_picture_is_drawn(browser: Chrome, sweep: Path) -> None:
    groups = [g for g in group_seeds(collect([str(sweep)])) if g.numbers]
    references = 3  # the teacher, and an assistant of each seed
    points = browser.find_elements(By.CSS_SELECTOR, "#front .scatterlayer .point")
    assert len(points) == len(groups) + references
    notes = browser.find_elements(By.CSS_SELECTOR, "#map-0 .annotation-text")
    words = [note.text for note in notes]
    assert "failed" in words
    assert "missing" in words
    assert sum("±" in word for word in words) == 1
    for part in ("#languages .hm image", "#languages .annotation", "#curves .js-line"):
        assert browser.find_elements(By.CSS_SELECTOR, part), part


def test_hovering_shows_the_cell(browser: Chrome) -> None:
    ActionChains(browser).move_to_element(point(browser, 0)).perform()
    shown = wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#front .hovertext"))
    assert "bottleneck=4" in shown[0].text
    assert "size on disk (MiB)" in shown[0].text


def test_clicking_shows_configuration_and_command(browser: Chrome) -> None:
    ActionChains(browser).move_to_element(point(browser, 0)).click().perform()
    wait(browser, lambda: browser.find_element(By.ID, "detail").is_displayed())
    said = text(browser, "detail-body")
    assert "python -m mlkd.train stage=contrastive" in said
    assert "bottleneck: 4" in said
    assert "assistant-" in said
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    wait(browser, lambda: not browser.find_element(By.ID, "detail").is_displayed())


def test_the_keyboard_alone_reaches_a_cell(browser: Chrome) -> None:
    front = browser.find_element(By.ID, "front")
    for _ in range(20):
        if browser.switch_to.active_element == front:
            break
        ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element == front
    assert front.value_of_css_property("outline-style") == "solid"
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    second = text(browser, "spoken")
    assert "bottleneck=" in second
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait(browser, lambda: browser.find_element(By.ID, "detail").is_displayed())
    assert second.startswith(text(browser, "detail-title"))
    ActionChains(browser).send_keys(Keys.ENTER).perform()  # the focus is on "Close"
    wait(browser, lambda: not browser.find_element(By.ID, "detail").is_displayed())


def test_the_table_sorts_both_ways_and_empty_fields_stay_last(browser: Chrome) -> None:
    head = browser.find_element(By.XPATH, "//table[@id='cells']//button[text()='test STS']")
    for sign in (1, -1):
        head.send_keys(Keys.ENTER)
        values = column(browser, "test STS")
        numbers = [sign * float(v) for v in values if v != "–"]
        assert numbers == sorted(numbers)
        assert values[len(numbers) :] == ["–", "–"]
    parent = head.find_element(By.XPATH, "..")
    assert parent.get_attribute("aria-sort") == "descending"


def test_the_table_filters(browser: Chrome) -> None:
    Select(browser.find_element(By.ID, "status")).select_by_visible_text("failed")
    assert column(browser, "status") == ["failed"]
    assert text(browser, "shown") == "1 of 7 cells"
    Select(browser.find_element(By.ID, "status")).select_by_visible_text("all")
    browser.find_element(By.ID, "filter").send_keys("missing")
    assert column(browser, "status") == ["missing"]
    browser.find_element(By.CSS_SELECTOR, "#cells tbody tr:not([hidden]) button.open").click()
    assert "recurrence: 4" in text(browser, "detail-body")


def contrast(one: str, two: str) -> float:
    """Contrast of two CSS colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_dark_and_light_are_both_readable(browser: Chrome) -> None:
    grounds = set()
    for _ in range(2):
        style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        ground = browser.execute_script(style, "body", "backgroundColor")
        grounds.add(ground)
        for element in ("body", "p", "button.open"):
            assert contrast(browser.execute_script(style, element, "color"), ground) >= 4.5
        drawn = browser.execute_script(
            "return document.querySelector('#front')._fullLayout.font.color"
        )
        rgb = f"({','.join(str(int(drawn[i : i + 2], 16)) for i in (1, 3, 5))})"
        assert contrast(rgb, ground) >= 4.5
        browser.find_element(By.ID, "theme").click()
    assert len(grounds) == 2


def test_choosing_other_axes_redraws_without_a_shift(browser: Chrome) -> None:
    Select(browser.find_element(By.ID, "cost")).select_by_value("parameters")
    Select(browser.find_element(By.ID, "quality")).select_by_value("kept")
    title = browser.find_element(By.CSS_SELECTOR, "#front .xtitle")
    assert wait(browser, lambda: title.text) == "stored parameters (M)"
    assert sum(browser.execute_script("return window.shifts")) == 0
    assert browser.get_log("browser") == []
