"""The launcher's requests to its own server, over HTTP on this machine, with the key that opens it.

HTTP rather than gRPC: it needs no package, and no certificate if gRPC requires one of clients; the
same queue, model and processes answer. `greets` checks the gRPC port itself.
"""

import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from reward_contract import INPUT_IDS, REWARD

# the first bytes of an HTTP/2 connection, and empty settings; a server answers with its own
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
FRAME_HEADER_BYTES = 9
SETTINGS = 4
# no proxy: the server is on this machine, whatever the environment says; made once, since that
# costs more than a request
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RefusedError(Exception):
    """The server answered with an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Control:
    """A server's HTTP port, and the key to what is closed to others.

    Attributes:
        url: such as `http://127.0.0.1:8000`.
        headers: names and values that open the closed protocols.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def is_ready(self, path: str, *, timeout_s: float = 2.0) -> bool:
        """Whether a path below `/v2` answers that it is ready; False if nothing answers."""
        try:
            self._ask(path, None, timeout_s)
        except (OSError, RefusedError):
            return False
        return True

    def state(self, model: str, version: int) -> str:
        """Triton's state of a version: READY, LOADING, UNLOADING, UNAVAILABLE, or "".

        Raises:
            OSError: nothing answers.
            RefusedError: the key does not open the index.
        """
        index = self._ask("repository/index", {}, 5.0)
        for entry in cast("list[dict[str, str]]", index):
            if entry["name"] == model and entry.get("version") == str(version):
                return entry.get("state", "")
        return ""

    def n_executions(self, model: str) -> int:
        """Number of executions of a model that have ended, over all versions.

        Raises:
            OSError: nothing answers.
            RefusedError: the key does not open statistics, or there is no such model.
        """
        stats = cast(
            "dict[str, list[dict[str, int]]]", self._ask(f"models/{model}/stats", None, 5.0)
        )
        return sum(version["execution_count"] for version in stats["model_stats"])

    def reward(self, model: str, row: tuple[int, ...], *, timeout_s: float) -> tuple[float, int]:
        """A model's reward of one row without padding, and the version that gave it.

        Raises:
            OSError: nothing answers in time.
            RefusedError: the server answered with an error.
        """
        request = {
            "inputs": [
                {
                    "name": INPUT_IDS.name,
                    "datatype": INPUT_IDS.dtype,
                    "shape": [1, len(row)],
                    "data": list(row),
                }
            ],
            "outputs": [{"name": REWARD.name}],
            "parameters": {"timeout": int(timeout_s * 1e6)},
        }
        answer = self._ask(f"models/{model}/infer", request, timeout_s)
        found = cast("dict[str, object]", answer)
        (output,) = cast("list[dict[str, list[float]]]", found["outputs"])
        return float(output["data"][0]), int(str(found["model_version"]))

    def _ask(self, path: str, body: object, timeout_s: float) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # our own server's
            f"{self.url}/v2/{path}", data, dict(self.headers)
        )
        try:
            with OPENER.open(request, timeout=timeout_s) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise RefusedError(_reason(error), status=error.code) from error
        except http.client.HTTPException as error:  # such as a gRPC server that has taken the port
            raise ConnectionError(f"{self.url} does not speak HTTP/1") from error
        return json.loads(text) if text else None


def greets(host: str, port: int, *, tls: bool, timeout_s: float) -> bool:
    """Whether a gRPC port takes a new connection and speaks HTTP/2 to it.

    Args:
        host: the address.
        port: the port.
        tls: whether the port speaks TLS; then a handshake is enough, since the server may close
            the connection of a client without a certificate.
        timeout_s: seconds that each step may take.
    """
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False  # it is our own, on this machine
                context.verify_mode = ssl.CERT_NONE
                context.set_alpn_protocols(["h2"])
                with context.wrap_socket(connection):
                    return True
            connection.sendall(HTTP2_HELLO)
            header = b""
            while len(header) < FRAME_HEADER_BYTES:
                if not (part := connection.recv(FRAME_HEADER_BYTES - len(header))):
                    return False
                header += part
            return header[3] == SETTINGS
    except OSError:
        return False


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"
