"""A chat server whose replies are scripted."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[BaseHTTPRequestHandler, dict[str, Any], int], bool]


class Generator:
    """An OpenAI-compatible server whose replies are scripted.

    Attributes:
        replies: taken in turn; a request for several choices starts at the first.
        requests: request bodies so far.
        headers: headers of each request.
        knows_n: whether it returns as many choices as a request's `n`, or always one.
        respond: called first, with the handler, the body and the number of earlier requests;
            the server answers unless this returns true.
    """

    def __init__(self) -> None:
        self.replies = ["short", "a little longer", "the longest reply of them all", "short"]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.knows_n = True
        self.respond: Respond | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "Generator":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any], number: int) -> dict[str, Any]:
        n = body.get("n", 1) if self.knows_n else 1
        first = 0 if n > 1 else number
        texts = [self.replies[(first + i) % len(self.replies)] for i in range(n)]
        is_chat = path.endswith("chat/completions")
        choices = [
            {"index": i, "finish_reason": "stop", "logprobs": None}
            | ({"message": {"role": "assistant", "content": text}} if is_chat else {"text": text})
            for i, text in enumerate(texts)
        ]
        return {
            "id": "made-1",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": int(time.time()),
            "model": body.get("model", "tiny"),
            "choices": choices,
            "usage": {"prompt_tokens": 5, "completion_tokens": 3 * n, "total_tokens": 5 + 3 * n},
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        generator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                send(self, 200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with generator._lock:
                    number = len(generator.requests)
                    generator.requests.append(body)
                    generator.headers.append({k.lower(): v for k, v in self.headers.items()})
                if generator.respond is None or not generator.respond(self, body, number):
                    send(self, 200, generator.answer(self.path, body, number))

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: object,
    headers: dict[str, str] | None = None,
) -> None:
    content = json.dumps(body).encode()
    with contextlib.suppress(OSError):  # the caller may be gone
        handler.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
