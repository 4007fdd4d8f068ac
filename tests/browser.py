"""A headless Chromium for tests, which runs scripts in a page by the DevTools protocol over a pipe."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--remote-debugging-pipe")


def find_browser() -> str:
    """Path of a Chromium. Skips the test if there is none."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    return browser


class Page:
    """A page in a browser of its own. Use it in a `with` statement."""

    def __init__(self, address: str, folder: Path) -> None:
        """folder: for the browser's profile."""
        self._address, self._folder, self._count = address, folder, 0

    def __enter__(self) -> Self:
        commands, self._to_browser = os.pipe()
        self._from_browser, answers = os.pipe()
        # the browser reads commands from descriptor 3 and writes answers to 4
        script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        options = (*_OPTIONS, "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={self._folder}")
        self._process = subprocess.Popen(
            ["bash", "-c", script, find_browser(), *options, "about:blank"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self._folder)},
        )
        os.close(commands)
        os.close(answers)
        self._answers = os.fdopen(self._from_browser, "rb")
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Page.navigate", url=self._address)
        while self._receive().get("method") != "Page.loadEventFired":
            pass
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to_browser)
        self._process.terminate()
        self._process.wait()
        self._answers.close()

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        result = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true. Fails after `seconds`."""
        script = f"""new Promise((resolve) => {{
          const until = performance.now() + {1000 * seconds};
          const look = () => {{
            if ({condition}) resolve(true);
            else if (performance.now() > until) resolve(false);
            else setTimeout(look, 50);
          }};
          look();
        }})"""
        assert self.run(script), f"{condition} did not come true; {self.run('document.body.innerText')}"

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(command).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _receive(self) -> Any:
        """The next answer or event."""
        data = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        return json.loads(data)
