"""A real Chromium for the tests of the page, driven by Selenium; skips where it is missing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.sandbox import ROOT

PATIENCE_S = 90.0
"""A busy machine takes long to start a browser and to name a smell."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # root runs the tests of continuous integration
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)

SCREENSHOTS = os.environ.get("SCENTD_TEST_SCREENSHOTS", "")
"""A folder to which the tests write pictures of the views, for docs/."""

AXE = ROOT / ".cache/axe-core/axe.min.js"
"""Put there by .ci/run; 500 kB that need not be in the repository."""


class Browser:
    """A window with the page, and what a person does there."""

    def __init__(self, chrome: Chrome, address: str) -> None:
        self.chrome = chrome
        self.address = address

    def open(self, view: str = "now") -> None:
        self.chrome.get(f"{self.address}#/{view}")

    def go(self, view: str) -> None:
        """Follow the link to a view."""
        self.find(f"#tabs a[href='#/{view}']").click()
        self.await_element(f"#tabs a[href='#/{view}'][aria-current]")

    def find(self, selector: str) -> WebElement:
        return self.await_element(selector)

    def await_element(self, selector: str) -> WebElement:
        found: list[WebElement] = []

        def there() -> bool:
            found[:] = self.chrome.find_elements(By.CSS_SELECTOR, selector)
            return bool(found)

        self.wait(there, f"{selector} in {self.text()[:1500]}")
        return found[0]

    def text(self, selector: str = "body") -> str:
        try:
            return " ".join(
                item.text for item in self.chrome.find_elements(By.CSS_SELECTOR, selector)
            )
        except StaleElementReferenceException:  # drawn anew just now
            return ""

    def await_text(self, text: str, selector: str = "body") -> None:
        self.wait(
            lambda: text.lower() in self.text(selector).lower(),
            lambda: f"{text!r} in {selector}, which reads: {self.text(selector)[:1500]}",
        )

    def button(self, name: str) -> WebElement:
        """Return the button with a text or an accessible name."""
        found: list[WebElement] = []

        def there() -> bool:
            try:
                found[:] = [
                    item
                    for item in self.chrome.find_elements(By.TAG_NAME, "button")
                    if name in (item.text, item.get_attribute("aria-label")) and item.is_enabled()
                ]
            except StaleElementReferenceException:
                return False
            return bool(found)

        self.wait(there, lambda: f"a button {name!r} in {self.text()[:1500]}")
        return found[0]

    def click(self, name: str) -> None:
        """Press a button with the keyboard's help, which no animation can move away."""
        for _ in range(20):
            try:
                self.button(name).send_keys("\n")
            except StaleElementReferenceException:
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"the button {name!r} is drawn anew all the time")

    def type_into(self, name: str, text: str) -> None:
        """Type into the field with a label."""
        path = f"//label[span[normalize-space()='{name}']]//input"
        field = self.chrome.find_elements(By.XPATH, path)[-1]
        field.clear()
        field.send_keys(text)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, happened: Callable[[], object], what: str | Callable[[], str]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited in vain for {what if isinstance(what, str) else what()}")
            time.sleep(0.05)

    def picture(self, name: str, folder: Path) -> Path:
        """Write a picture of the whole page."""
        height = self.run("return document.documentElement.scrollHeight")
        self.chrome.set_window_size(1200, max(700, min(height + 160, 2000)))
        self.run("document.activeElement.blur(); scrollTo(0, 0);")
        time.sleep(0.3)
        path = Path(SCREENSHOTS or folder) / f"page-{name}.png"
        assert self.chrome.save_screenshot(str(path))
        self.chrome.set_window_size(1200, 900)
        return path

    def complaints(self) -> list[str]:
        """Return the errors in the browser's log: refused by the policy, thrown by a script."""
        return [
            entry["message"]
            for entry in self.chrome.get_log("browser")
            if entry["level"] == "SEVERE"
        ]


@contextmanager
def browser(address: str, profile: Path, *flags: str, size: str = "1200,900") -> Iterator[Browser]:
    """Open a window with a new profile."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed: sudo apt install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={size}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome, address)
    finally:
        chrome.quit()


def accessibility_faults(window: Browser) -> list[str]:
    """Return what axe finds serious or critical; skips where axe is not there."""
    if not AXE.exists():
        pytest.skip("axe-core is not in .cache/axe-core; .ci/run puts it there, by npm")
    window.run(AXE.read_text(encoding="utf-8"))
    result = window.chrome.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations']}).then(done, (e) => done({error: `${e}`}));"
    )
    assert "error" not in result, result
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'][:120] for node in fault['nodes'][:3]]}"
        for fault in result["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
