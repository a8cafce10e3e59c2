"""Open a page in headless Chromium, over its debugging pipe, and return what a reader and the network notice."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
PATIENCE = 60  # seconds, for one answer on a busy machine
MEASURE = """(() => {
  document.querySelectorAll('details').forEach(part => part.open = true);
  const root = document.documentElement, images = [...document.images];
  return JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, text: document.body.innerText,
    broken: images.filter(image => !(image.complete && image.naturalWidth)).length,
    nameless: images.filter(image => !image.alt.trim()).length,
    wide: [...document.querySelectorAll('main *')].filter(part => !part.closest('.scroll')
      && part.getBoundingClientRect().right > root.clientWidth + 1).map(part => part.outerHTML.slice(0, 80))});
})()"""


class Browser:
    """A running Chromium; see https://chromedevtools.github.io/devtools-protocol for the methods."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read, self.count, self.rest = write, read, 0, b""
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters, "sessionId": session}
        message = {name: value for name, value in message.items() if value is not None}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        return next(answer for answer in self._messages() if answer.get("id") == self.count)["result"]

    def wait(self, method: str) -> None:
        if not any(event["method"] == method for event in self.events):
            next(message for message in self._messages() if message.get("method") == method)

    def _messages(self):
        while True:
            while b"\0" not in self.rest:
                assert select.select([self.read], [], [], PATIENCE)[0], "Chromium does not answer"
                self.rest += os.read(self.read, 1 << 20)
            text, _, self.rest = self.rest.partition(b"\0")
            message = json.loads(text)
            if "method" in message:
                self.events.append(message)
            yield message

    def visit(self, page: Path, *, width: int, picture: Path | None = None) -> dict:
        """Open a page and its folded parts; return what was measured, requested and complained of."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **screen)
        self.events = []
        self.call("Page.navigate", session, url=page.resolve().as_uri())
        self.wait("Page.loadEventFired")
        measured = self.call("Runtime.evaluate", session, expression=MEASURE)["result"]["value"]
        if picture:
            shot = self.call("Page.captureScreenshot", session, captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        self.call("Target.closeTarget", targetId=target)
        events = [(event["method"], event["params"]) for event in self.events]
        errors = [reported for method, reported in events if method in COMPLAINTS]
        requests = [details["request"]["url"] for method, details in events if method == "Network.requestWillBeSent"]
        return {**json.loads(measured), "requests": requests, "errors": errors}


@contextmanager
def chromium():
    """Start Chromium, which reads its orders on descriptor 3 and answers on 4, and end it."""
    ours, theirs = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1])]
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)),
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(ours[1], theirs[0])
        finally:
            process.terminate()
            process.wait()
            for end in (*ours, *theirs, *ends):
                os.close(end)
