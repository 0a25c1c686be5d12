"""A real browser at Airflow's pages: headless Chromium, for the tests that walk and for pictures."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

BINARIES = ("chromium", "google-chrome")
DRIVER = "chromedriver"
OURS = "checkpoint-migrations"  # in the addresses of our pages
AIRFLOWS = "An iframe which has both allow-scripts and allow-same-origin"
PATIENCE = 60.0  # seconds for which a page may be on its way


class Browser:
    """A person at Airflow's UI: sees what is shown, presses what has a name, fills what has one."""

    def __init__(self, driver: Any, url: str, pictures: Path) -> None:
        self.driver, self.url, self._pictures = driver, url, pictures
        pictures.mkdir(parents=True, exist_ok=True)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def log_in(self, password: str, user: str = "admin") -> None:
        self.go("/")
        self.find("input[name=username]").send_keys(user)
        self.find("input[name=password]").send_keys(password)
        self.find("button[type=submit]").click()
        self.find("[data-testid=nav-dags-link]")

    def go(self, path: str) -> None:
        self.driver.get(self.url + path)

    def find(self, css: str, seconds: float = PATIENCE) -> WebElement:
        """The first element that is shown."""
        return self.until(lambda: self._shown(css), f"nothing like {css} is shown", seconds)

    def _shown(self, css: str) -> WebElement | None:
        found = self.driver.find_elements(By.CSS_SELECTOR, css)
        return next((element for element in found if element.is_displayed()), None)

    @property
    def path(self) -> str:
        """Where the browser is, without the host."""
        return str(self.driver.current_url).removeprefix(self.url)

    def press_when_enabled(self, css: str) -> None:
        """Press what a form lets one press once it is filled well."""
        button = self.find(css)
        self.until(button.is_enabled, f"{css} stays disabled")
        button.click()

    def press(self, name: str, kind: str = "button", seconds: float = PATIENCE) -> None:
        """Press the button (or link, or tab) of this name."""
        path = f'//{kind}[normalize-space(.)="{name}" or @aria-label="{name}" or @title="{name}"]'

        def pressed() -> bool:
            for element in self.driver.find_elements(By.XPATH, path):
                if element.is_displayed() and element.is_enabled():
                    element.click()
                    return True
            return False

        self.until(pressed, f"there is no {kind} {name!r} to press", seconds)

    def fill(self, css: str, text: str) -> None:
        """Type a text, again where a field that is drawn anew meanwhile has swallowed a letter."""

        def filled() -> bool:
            field = self.find(css)
            if field.get_attribute("value") != text:
                field.clear()
                field.send_keys(text)
                time.sleep(0.3)
            return bool(field.get_attribute("value") == text)

        self.until(filled, f"{css} does not take {text!r}")

    def see(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until the page shows a text."""
        self.until(lambda: text in self.text(), f"the page does not show {text!r}", seconds)

    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def scroll_to(self, heading: str) -> None:
        found = self.driver.find_element(By.XPATH, f'//h2[starts-with(., "{heading}")]')
        self.driver.execute_script("arguments[0].scrollIntoView()", found)

    def complaints(self) -> list[str]:
        """What the browser's console holds against our own pages: refused styles, scripts, hosts."""
        told = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [line for line in told if OURS in line and AIRFLOWS not in line]

    @contextlib.contextmanager
    def inside(self, css: str = "iframe") -> Iterator[None]:
        """What is shown in a frame of the page, as the report's tab is."""
        frame = self.find(css)
        self.driver.switch_to.frame(frame)
        try:
            yield
        finally:
            self.driver.switch_to.default_content()

    def picture(self, name: str) -> Path:
        """Keep what is shown now."""
        path = self._pictures / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def until(self, true: Callable[[], Any], else_: str, seconds: float = PATIENCE) -> Any:
        """Wait until something is true of a page that may redraw itself meanwhile, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(WebDriverException):
                if found := true():
                    return found
            time.sleep(0.2)
        self.picture("what-was-there-instead")
        shown = f"{self.driver.current_url} shows:\n{self.text()[:2000]}"
        raise AssertionError(f"{else_} after {seconds:.0f} s; {shown}")


@contextlib.contextmanager
def chromium(
    url: str, pictures: Path, *, width: int = 1360, height: int = 850
) -> Iterator[Browser]:
    """A browser of its own, with nothing of any user's profile, closed afterwards."""
    binary = next((found for name in BINARIES if (found := shutil.which(name))), None)
    driver = shutil.which(DRIVER)
    if binary is None or driver is None:
        raise FileNotFoundError("Chromium and its driver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--lang=en",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser = Browser(chrome, url, pictures)
        browser.resize(width, height)
        yield browser
    finally:
        chrome.quit()
