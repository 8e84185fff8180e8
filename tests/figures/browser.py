"""A headless Chromium, driven over the two pipes of its debugging protocol: no library, no port."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which needs rights that containers do not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--mute-audio",
)
_LAUNCH = """import os, sys
for descriptor, end in zip((3, 4), sys.argv[1:3]):  # where Chromium reads, and where it writes
    os.dup2(int(end), descriptor)
os.execv(sys.argv[3], sys.argv[3:])"""
_KEYS = {"Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
_HIGH = 20  # descriptors above those that Chromium reads and writes


def chromium():
    """The path of a Chromium or Chrome; `None` where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless Chromium.

    Attributes:
        problems: what the page wrote to the console, what it threw, and what its policy refused.
    """

    def __init__(self, read, write):
        self._read, self._write, self._buffer, self._number = read, write, b"", 0
        self.problems, self._events, self._session = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.view(1280, 900)

    def call(self, method, **parameters):
        """What a method of the protocol returns."""
        self._number += 1
        self._send(method, parameters, self._number)
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path, seconds=30):
        """Loads a file, and returns when all of it that is wanted at once is there."""
        self.problems.clear()
        self._events.clear()
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        self._until("Page.loadEventFired", seconds)

    def view(self, width, height, *, dark=False, scale=1):
        """Sets the size of the window in CSS pixels, and the wanted color scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, code):
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", answer))
        return answer["result"].get("value")

    def press(self, key):
        """Presses a key, as a person does."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key]
            )

    def wait_for(self, condition, seconds=20):
        """Returns once a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {condition}")
            time.sleep(0.02)

    def screenshot(self, path):
        """Writes what is seen as a PNG file."""
        answer = self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path):
        """Prints the page."""
        answer = self.call("Page.printToPDF", printBackground=False)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def _send(self, method, parameters, number):
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def _until(self, event, seconds):
        end = time.monotonic() + seconds
        while event not in self._events:
            if time.monotonic() > end:
                raise TimeoutError(f"no {event} after {seconds} s")
            self._note(self._next())

    def _next(self):
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message):
        method, found = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(found["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(" ".join(str(a.get("value", a)) for a in found["args"]))
        elif method == "Log.entryAdded":
            self.problems.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {found['message']}")
            self._send("Page.handleJavaScriptDialog", {"accept": True}, 0)
        elif method == "Network.loadingFailed" and not found.get("canceled"):
            self.problems.append(f"not loaded: {found.get('errorText')} {found.get('blockedReason', '')}")


@contextlib.contextmanager
def browser():
    """A browser that ends with the block."""
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, _HIGH) for end in (to_child, from_child)]
    for end in (to_child, from_child):
        os.close(end)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        line = [sys.executable, "-S", "-c", _LAUNCH, *map(str, ends), chromium(), *_OPTIONS]
        process = subprocess.Popen(
            [*line, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        try:
            page = Browser(to_parent, from_parent)
            yield page
        finally:
            with contextlib.suppress(Exception):
                page._session = None
                page.call("Browser.close")
            os.close(from_parent)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_parent)
