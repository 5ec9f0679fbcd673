"""The page in a real browser: it is what a colleague sees."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrm_ttt.eval.report.page import write_page
from tests.eval.report.make import METHODS, fail, make_results, write_cells
from tests.helpers.shared import CHECKOUT

pytest.importorskip("playwright", reason="pip install playwright")
from playwright.sync_api import BrowserContext, Page, sync_playwright

BROWSERS = (
    *("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NASTY = "<b>\"a\" & 'b'</b>"
SCENES = ("lego", "mydesk", "procedural-object-0", NASTY)
VIEWS = (4, 8, 16)
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    cells = make_results(folder, size=16, scenes=SCENES, methods=(*METHODS[:-1], NASTY))
    write_cells(folder, [*cells[:-1], fail(cells[-1], f"no memory left: {NASTY}")])
    return write_page(folder).as_uri()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        reason = f"no browser is installed: none of {', '.join(BROWSERS)}"
        # Where everything is checked, nobody would notice that this is not.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    profile = tmp_path_factory.mktemp("profile")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=executable, headless=True, args=FLAGS, viewport=LAPTOP
        )
        yield context
        context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab that fails its test on any message, error or request for something outside the file."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", lambda request: complaints.append(request.url[:200]) if _leaves_the_file(request.url) else None)
    yield page
    page.close()
    assert not complaints


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: kept as artefacts of continuous integration."""
    folder = CHECKOUT / ".ci" / "artifacts" if os.environ.get("CI") == "true" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _leaves_the_file(url: str) -> bool:
    return not url.startswith(("file://", "data:"))


def _column(page: Page, views: int, key: str) -> list[str]:
    return page.locator(f'table[data-views="{views}"] tbody [data-key="{key}"]').all_inner_texts()


def test_plots_have_a_line_per_method_and_a_point_per_mean(page: Page, page_url: str, pictures: Path) -> None:
    page.goto(page_url)
    for plot in ("psnr-views", "psnr-seconds"):
        assert page.locator(f"#{plot} .series .line").count() == len(METHODS)
        assert page.locator(f"#{plot} .series .point").count() == len(METHODS) * len(VIEWS)
        assert page.locator(f"#{plot} .label").count() == 2
    page.screenshot(path=pictures / "report_laptop.png", full_page=True)
    # A click in the legend takes the method out of both plots, another brings it back.
    button = page.locator(".legend button").first
    shown = page.locator("#plots .series:visible")
    for pressed, count in (("false", len(METHODS) - 1), ("true", len(METHODS))):
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        assert page.locator('#plots .series:not([visibility="hidden"])').count() == 2 * count
    assert shown.count() == 2 * len(METHODS)


def test_ten_methods_are_told_apart(page: Page, tmp_path: Path) -> None:
    methods = [f"method {number}" for number in range(10)]
    write_cells(tmp_path, make_results(tmp_path, size=16, scenes=("lego",), methods=methods))
    page.goto(write_page(tmp_path).as_uri())
    for look in ("d", "fill"):
        signs = page.locator(".legend .sign path").evaluate_all(f"paths => paths.map((p) => p.getAttribute('{look}'))")
        assert len(set(signs)) == len(signs) == len(methods)


def test_points_stand_where_their_numbers_say(page: Page, page_url: str) -> None:
    """Read the axes back from their ticks: a higher PSNR is higher up, in proportion."""
    page.goto(page_url)
    ticks = page.evaluate(
        """[...document.querySelectorAll('#psnr-views .tick[text-anchor="end"]')].map(
            (tick) => [Number(tick.textContent), Number(tick.getAttribute("y")) - 4])"""
    )
    (low, low_y), (high, high_y) = ticks[0], ticks[-1]
    points = page.evaluate(
        """[...document.querySelectorAll("#psnr-views .point")].map((point) => [
            Number(point.querySelector("title").textContent.match(/: ([0-9.]+) dB/)[1]),
            Number(point.getAttribute("transform").match(/ ([0-9.]+)\\)/)[1])])"""
    )
    assert len(points) == len(METHODS) * len(VIEWS)
    for psnr, y in points:
        # Half a hundredth of a dB and a twentieth of a pixel are rounded away.
        assert abs(low_y + (psnr - low) / (high - low) * (high_y - low_y) - y) < 0.5


def test_a_click_on_a_heading_sorts(page: Page, page_url: str) -> None:
    page.goto(page_url)
    heading = page.locator('table[data-views="4"] thead th[data-key="psnr"]')
    assert heading.get_attribute("aria-sort") == "none"
    before = [float(text) for text in _column(page, 4, "psnr")]
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in _column(page, 4, "psnr")] == sorted(before, reverse=True) != before
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in _column(page, 4, "psnr")] == sorted(before)
    # Less is better of seconds, so they begin with the least.
    page.locator('table[data-views="4"] thead th[data-key="seconds"] button').click()
    seconds = [float(text.replace(",", "")) for text in _column(page, 4, "seconds")]
    assert seconds == sorted(seconds)


def test_the_filter_changes_the_means(page: Page, page_url: str) -> None:
    page.goto(page_url)
    assert set(_column(page, 8, "scenes")) == {"3"}
    assert set(_column(page, 16, "scenes")) == {"3", "2 of 3\n1 failed"}
    captures = _column(page, 8, "psnr")
    kinds = page.get_by_role("group", name="Mean over")
    kinds.get_by_role("button", name="1 procedural scene").click()
    assert _column(page, 8, "psnr") != captures
    kinds.get_by_role("button", name="all 4 scenes").click()
    assert set(_column(page, 8, "scenes")) == {"4"}
    page.locator("#results select").select_option("scene:lego")
    assert set(_column(page, 8, "scenes")) == {"1"}


def test_a_scene_has_an_address_and_a_slider_that_moves(page: Page, page_url: str, pictures: Path) -> None:
    page.goto(f"{page_url}#scene=lego&views=8")
    assert page.locator("#scene h1").inner_text() == "lego"
    assert not page.locator("#overview").is_visible()
    over, slider = page.locator(".comparison .over"), page.locator(".comparison input")

    def covered() -> float:
        clip: str = over.evaluate("(image) => getComputedStyle(image).clipPath")
        return 100 - float(clip.split()[1].rstrip("%"))

    assert covered() == 50
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert covered() == 51
    box = slider.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], middle, steps=4)
    page.mouse.up()
    assert covered() == pytest.approx(25, abs=1.5)
    page.wait_for_function("document.querySelector('.pair .note span').textContent.includes('dB')")
    page.screenshot(path=pictures / "report_scene.png", full_page=True)
    # Other pictures: another pair, another held-out view, another number of views, and back.
    before = over.get_attribute("src")
    page.locator(".pair select").first.select_option("streaming")
    assert page.locator(".comparison .over").get_attribute("src") != before
    page.get_by_role("group", name="Held-out view").get_by_role("button", name="8").click()
    page.get_by_role("group", name="Input views").get_by_role("button", name="16").click()
    page.wait_for_url("**#scene=lego&views=16")
    page.get_by_text("All results").click()
    page.locator("#results").wait_for()


def test_the_error_map_is_the_difference_of_the_pictures(page: Page, page_url: str) -> None:
    """Truth against itself is black all over, and its PSNR against a render is what the row says."""
    page.goto(f"{page_url}#scene=lego&views=8")
    page.locator(".pair select").nth(1).select_option("")
    page.get_by_text("the same picture").wait_for()
    colours = page.evaluate(
        """(() => { const canvas = document.querySelector(".error");
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; })()"""
    )
    assert set(zip(*[iter(colours)] * 4, strict=True)) == {(0, 0, 4, 255)}
    page.locator(".pair select").nth(1).select_option("streaming")
    page.get_by_text("dB PSNR between").wait_for()
    assert page.evaluate("document.querySelector('.error').width") == 16


def test_names_are_text(page: Page, page_url: str) -> None:
    page.goto(page_url)
    page.locator(f"#scenes a:has-text({_quoted(NASTY)})").click()
    assert page.locator("#scene h1").inner_text() == NASTY
    page.get_by_role("group", name="Input views").get_by_role("button", name="16").click()
    assert f"no memory left: {NASTY}" in page.locator("#scene .notice").inner_text()
    page.reload()
    assert page.locator("#scene h1").inner_text() == NASTY
    assert page.locator("b:text-is('a')").count() == 0


def test_a_phone_scrolls_down_only(page: Page, page_url: str, pictures: Path) -> None:
    page.set_viewport_size(PHONE)
    for name, address in (("phone", ""), ("phone_scene", "#scene=lego&views=8")):
        page.goto("about:blank")
        page.goto(page_url + address)
        page.screenshot(path=pictures / f"report_{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
