"""The page to draw on in a real browser: Chromium, driven by Playwright.

    python -m support.test_browser docs/draw.png     take a picture of the page, with a number drawn

Two development tools are needed: `apt-get install chromium` and `pip install playwright`. Where one
is missing, the tests are skipped; with BROWSER_TEST=required in the environment, they fail.
"""
import contextlib
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from support import png
from support.command_line import say
from support.compositions import smooth_curve
from support.test_canvas import start, stop
from support.test_tools import HERE, STROKES, TestCase, picture, written

import numpy as np

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium")
MISSING = "chromium and playwright are needed (support/test_browser.py says how to get them)"
WAIT = 60_000  # milliseconds that an answer may take where other work is done, too


@contextlib.contextmanager
def chromium():
    """The browser."""
    with sync_playwright() as playwright:
        # Without its sandbox, which the administrator of a machine can't use.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def draw(page, text: str, left: float, top: float = 0.2, height: float = 0.55) -> None:
    """Write digits with the pointer, side by side. Sizes are parts of the paper's height."""
    paper = page.locator("#canvas").bounding_box()
    high = paper["height"]
    for i, digit in enumerate(text):
        for kind, *points in STROKES[int(digit)]:
            points = np.array(points, float)
            if kind == "curve":
                points = smooth_curve(points)
            y, x = (np.array([top, left + 0.4 * i]) + height * points).T * high
            page.mouse.move(paper["x"] + x[0], paper["y"] + y[0])
            page.mouse.down()
            for across, down in zip(x[1:], y[1:]):
                page.mouse.move(paper["x"] + across, paper["y"] + down, steps=3)
            page.mouse.up()


def open_page(browser, url: str, width=1280, height=860, **more):
    page = browser.new_page(viewport={"width": width, "height": height}, **more)
    page.set_default_timeout(WAIT)
    page.goto(url)
    page.locator("#classes button").last.wait_for(state="attached")
    return page


def screenshot(path: Path) -> None:
    """A picture of the page, small enough for a README."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(folder)
        with chromium() as browser:
            page = open_page(browser, url, 1180, 810)
            draw(page, "42", 0.25)
            expect(page.locator("#number")).to_have_text("42", timeout=WAIT)
            page.mouse.move(0, 0)
            page.screenshot(path=path)
        stop(process)


@unittest.skipUnless((CHROMIUM and sync_playwright) or os.environ.get("BROWSER_TEST"), MISSING)
class TestBrowser(TestCase):
    @classmethod
    def setUpClass(cls):
        assert CHROMIUM and sync_playwright, MISSING
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.place = Path(folder.name)
        cls.process, cls.url = start(cls.place)
        cls.addClassCleanup(stop, cls.process)
        opened = contextlib.ExitStack()
        cls.addClassCleanup(opened.close)
        cls.browser = opened.enter_context(chromium())

    def setUp(self):
        super().setUp()
        self.messages = []

    def page(self, **more):
        """The page, open; whatever its console says is kept."""
        page = open_page(self.browser, self.url, **more)
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.reload()
        page.locator("#classes button").last.wait_for(state="attached")
        return page

    def says(self, page, text: str) -> None:
        expect(page.locator("#number")).to_have_text(text, timeout=WAIT)

    def test_draw_read_keep_undo_clear(self):
        page = self.page()
        self.says(page, "Nothing is drawn yet")
        draw(page, "7", 0.4)
        self.says(page, "7")
        self.assertRegex(page.locator("#digits").inner_text(), r"^7 \d\d\.\d%")
        expect(page.locator("#bars dt")).to_have_text([*"0123456789", "other"])
        page.get_by_role("button", name="That was a 7").click()
        expect(page.locator("#kept")).to_contain_text("Kept as 7 in", timeout=WAIT)
        kept, = (self.place / "my-digits/train/7").iterdir()
        self.assertIn(str(kept.relative_to(self.place)), page.locator("#kept").inner_text())
        seen = png.read_png(kept.read_bytes())
        self.assertEqual(seen.shape, (28, 28, 4))
        self.assertGreater(seen[..., 0].max(), 200)
        page.get_by_text("Inside the network").click()
        page.get_by_alt_text("What candidate 1 is after").wait_for()  # the picture is there
        page.keyboard.press("Escape")
        self.says(page, "Nothing is drawn yet")
        page.keyboard.press("Control+z")
        self.says(page, "7")
        page.get_by_role("button", name="Clear").click()
        draw(page, "42", 0.25)
        self.says(page, "42")
        expect(page.locator("#digits li")).to_have_count(2)
        expect(page.locator("#candidates button.chosen")).to_have_count(2)
        page.get_by_role("button", name="Undo").click()  # without its last stroke
        expect(page.locator("#number")).not_to_have_text("42", timeout=WAIT)
        page.keyboard.press("Delete")
        self.says(page, "Nothing is drawn yet")
        self.assertEqual(self.messages, [])
        page.context.set_offline(True)
        draw(page, "1", 0.5)
        expect(page.locator("#number")).to_contain_text("does not answer", timeout=WAIT)

    def test_a_picture_by_keyboard_at_every_width(self):
        png.write_png(self.folder / "year.png", picture(written("2026\n53")))
        for width, colours in ((360, "dark"), (1280, "light"), (2560, "dark")):
            page = self.page(width=width, height=900, color_scheme=colours)
            for _ in range(3):  # Undo and Clear can't be used yet
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == "open":
                    break
            self.assertEqual(page.evaluate("document.activeElement.id"), "open")
            page.set_input_files("#open", self.folder / "year.png")
            self.says(page, "2026\n53")
            wide, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            self.assertLessEqual(wide, shown)  # nothing runs out of the window
            page.close()
        self.assertEqual(self.messages, [])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else HERE / "docs/draw.png"
    screenshot(target)
    say(f"wrote {target}")
