"""A Hub on this machine: takes what is committed to it, and keeps every request that came."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 that speaks the five endpoints of an upload."""

    daemon_threads = True

    def __init__(self, refuses: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.refuses = refuses  # part of the paths that are answered with 403
        self.files: dict[str, bytes] = {}  # as committed, by their paths in the repository
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.commits = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """Answers as the Hub does, and says nothing on the screen."""

    server: FakeHub

    def do_GET(self) -> None:
        """Answer a question."""
        self.take()

    def do_POST(self) -> None:
        """Answer what is sent."""
        self.take()

    def take(self) -> None:
        """Keep the request and answer by its path."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.requests.append((self.path, dict(self.headers), body))
        if self.server.refuses and self.server.refuses in self.path:
            return self.answer({"error": "You don't have the rights"}, 403)
        if self.path.endswith("/api/repos/create"):
            name = json.loads(body)["name"]
            return self.answer({"url": f"{self.server.url}/me/{name}", "name": f"me/{name}", "id": "1"})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
            return self.answer(
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.url}/me/x/commit/0"}
            )
        if self.path.endswith("/api/validate-yaml"):
            return self.answer({"errors": [], "warnings": []})
        return self.answer({"error": f"nothing at {self.path}"}, 404)

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Take the files of a commit."""
        self.server.commits += 1
        for line in lines:
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])

    def answer(self, content: dict[str, Any], code: int = 200) -> None:
        """Send JSON."""
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
