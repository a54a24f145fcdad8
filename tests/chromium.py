"""A headless Chromium for the tests of the page, and axe-core, which finds what hinders people.

Both are installed where they are missing and may be installed; no test is skipped for want of them.
"""

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver", "npm": "npm"}
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
LOCKED = Path(__file__).with_name("browser")  # package.json and its lock


def program(name: str) -> str:
    """The path of a program, from Debian's package where it is missing. Raises: RuntimeError."""
    program = shutil.which(name)
    if program is None:
        _install(name)
        program = shutil.which(name)
    if program is None:
        raise RuntimeError(f"{name} is missing after apt-get install {PACKAGES[name]}")
    return program


def _install(name: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"{name} is missing: install Debian's {PACKAGES[name]}, or run as root on Debian")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", PACKAGES[name]]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, check=False).returncode:
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=True)
        subprocess.run(command, env=environment, check=True)


def axe() -> str:
    """The script of axe-core at the version and hash of its lock, installed into a folder of the machine's own."""
    npm = program("npm")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKED / name, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        return Path(folder, "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


class Browser:
    """A page in a window of a given size and colour scheme."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int, height: int, scheme: str = "light") -> None:
        """Load the page afresh."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get(page.resolve().as_uri())
        loaded = "return document.readyState === 'complete' && location.protocol === 'file:'"
        WebDriverWait(self.driver, 60).until(lambda driver: driver.execute_script(loaded))  # get may return too soon

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def faults(self, axe_core: str) -> list[Mapping[str, Any]]:
        """What axe-core calls serious or critical: the rule, and the elements that break it; no lines of drawings."""
        self.run(axe_core)
        violations = self.driver.execute_async_script(
            "const done = arguments[0];"
            "const but = {exclude: [['figure svg > *']]};"
            "axe.run(but, {resultTypes: ['violations']}).then((all) => done(all.violations.map((each) => ("
            "{id: each.id, impact: each.impact, at: each.nodes.slice(0, 5).map((node) => node.html)}))));"
        )
        return [each for each in violations if each["impact"] in ("serious", "critical")]

    def printed(self) -> bytes:
        """The page as a PDF."""
        made = self.driver.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
        return base64.b64decode(made["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own; nothing is loaded from elsewhere."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
        driver.set_script_timeout(120)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
