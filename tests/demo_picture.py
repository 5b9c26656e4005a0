"""The README's picture of the demo, of the quickstart's models and of the same without stage one.

    python -m tests.demo_picture docs/demo.png outputs/quickstart/sentiment outputs/quickstart/ner \
        --before outputs/base/sentiment outputs/base/ner

It shows the page as a browser does, after it has read one sentence.
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

from demo import DemoServer, open_models, parse_demo
from tests.browser import open_browser

SENTENCE = "Marco Eldmere of Marlow Shipping expects demand in Oslo to recover a little, unless rates rise again."
READ = "document.getElementById('said').textContent.endsWith('.') && !document.querySelector('.busy')"


def draw_demo(target: Path, argv: list[str], width: int = 1200, dark: bool = False) -> None:
    """Write what the page looks like.

    Args:
        target: a .png.
        argv: what demo.py would be called with.
        width: of the window, in pixels.
        dark: whether in dark colours.
    """
    flags = parse_demo(argv)
    with DemoServer(open_models(flags.folders, flags.before), 0) as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_browser(Path(folder)) as browser:
            browser.size(width, 800, dark)
            browser.open(f"http://127.0.0.1:{server.port}/")
            browser.wait_for(READ)
            browser.run(f"document.getElementById('text').value = {json.dumps(SENTENCE)}; ask()")
            browser.wait_for(READ)
            browser.picture(target)
        server.shutdown()


if __name__ == "__main__":
    draw_demo(Path(sys.argv[1]), sys.argv[2:])
