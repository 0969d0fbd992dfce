"""Who may do what on the server's ports, as options of tritonserver.

Triton has no user accounts. It has TLS and client certificates for gRPC, and protocols that
only callers with a certain header may use. docs/security.md says what that protects from whom.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reward_serve.errors import SecurityError

HEADER = "reward-control"
# loading models, registering shared memory, and changing what is traced and logged
CONTROL = "model-repository,shared-memory,trace,logging"
# all of HTTP except health, which probes use: HTTP has no TLS, and some bodies crash Triton 2.51
# before it has read them to the end; what is closed is refused before the body is read
BESIDES_HEALTH = f"inference,metadata,model-config,statistics,{CONTROL}"


@dataclass(frozen=True, slots=True)
class Security:
    """What the server requires of its callers.

    Attributes:
        certificate: PEM file of the gRPC port's certificate; None for plain text.
        private_key: PEM file of that certificate's key.
        client_roots: PEM file of authorities; clients have to show a certificate from one of them
            (mutual TLS).
        control_key: value of the header that opens the control protocols; if None, they are
            closed to every caller.
        http_inference: whether the HTTP port scores texts; otherwise it answers only health checks
            of callers without `http_key`.
        http_key: value of the header that opens what is closed over HTTP: the control key, or a
            random key if there is none or if gRPC has TLS, which HTTP does not have.

    Raises:
        SecurityError: a file is missing, a certificate lacks its key, or HTTP would carry texts
            that gRPC encrypts.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    client_roots: Path | None = None
    control_key: str | None = field(default=None, repr=False)
    http_inference: bool = False
    _drawn: str = field(default_factory=secrets.token_hex, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise SecurityError("a certificate and its private key go together; give both")
        if self.client_roots is not None and self.certificate is None:
            raise SecurityError(
                "client certificates need TLS; give the server's own certificate and key as well"
            )
        for path in (self.certificate, self.private_key, self.client_roots):
            if path is not None and not path.is_file():
                raise SecurityError(f"there is no file {path}")
        if self.control_key is not None and not self.control_key.strip():
            raise SecurityError("the control key is empty, which protects nothing; set a key")
        if self.http_inference and self.certificate is not None:
            raise SecurityError(
                "Triton's HTTP port has no TLS; turn off HTTP inference, or omit the certificate"
            )

    @property
    def http_key(self) -> str:
        """Value of the header that opens what is closed over HTTP."""
        if self.control_key is None or self.certificate is not None:
            return self._drawn
        return self.control_key

    def triton_options(self) -> tuple[str, ...]:
        """Options of tritonserver that enforce this."""
        return (*self._tls(), *self._restricted())

    def _tls(self) -> Iterator[str]:
        if self.certificate is None:
            return
        yield "--grpc-use-ssl=true"
        yield f"--grpc-server-cert={self.certificate}"
        yield f"--grpc-server-key={self.private_key}"
        if self.client_roots is not None:
            yield "--grpc-use-ssl-mutual=true"
            yield f"--grpc-root-cert={self.client_roots}"

    def _restricted(self) -> Iterator[str]:
        key = self.control_key or self._drawn
        closed = CONTROL if self.http_inference else BESIDES_HEALTH
        yield f"--grpc-restricted-protocol={CONTROL}:{HEADER}={key}"
        yield f"--http-restricted-api={closed}:{HEADER}={self.http_key}"
