"""How to run the server."""

from dataclasses import dataclass, field
from pathlib import Path

from reward_serve.security import HEADER, Security

_METRICS_OFF = frozenset({"--allow-metrics=false", "--allow-metrics=0"})
_CONTROL_MODE = "--model-control-mode="


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run the server.

    Attributes:
        repository: the model repository.
        host: address to listen on, IPv4 or a name for one; loopback by default, since Triton has
            no authentication of its own.
        grpc_port: 0 takes a free one.
        http_port: 0 takes a free one; readiness is checked on this port.
        metrics_port: 0 takes a free one.
        triton_options: further options of tritonserver, passed unchanged.
        security: who may do what; None leaves all of Triton's protocols open.
        ready_timeout_s: seconds within which the models have to be loaded at the start.
        load_timeout_s: seconds within which a new version has to be loaded alongside the old one.
        stop_timeout_s: seconds that requests in flight are given at the end.
        end_with_parent: whether the server ends when the starting thread does, even if
            that was killed. Set it in programs that start the server from their main thread.
        verbose: whether the server's log goes to standard error as well.
        json_log: whether it goes there as JSON, one object per line.
        models: names of the models to serve; all that the repository has if empty.
    """

    repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    triton_options: tuple[str, ...] = ()
    ready_timeout_s: float = 300.0
    load_timeout_s: float = 300.0
    stop_timeout_s: float = 30.0
    end_with_parent: bool = False
    verbose: bool = False
    json_log: bool = False
    security: Security | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()

    @property
    def all_triton_options(self) -> tuple[str, ...]:
        """The options that follow from `security`, and the further ones."""
        secured = () if self.security is None else self.security.triton_options()
        return (*secured, *self.triton_options)

    @property
    def own_headers(self) -> dict[str, str]:
        """Headers that open the server's HTTP port to its launcher."""
        return {} if self.security is None else {HEADER: self.security.http_key}

    @property
    def has_tls(self) -> bool:
        """Whether gRPC is encrypted."""
        return any(option.startswith("--grpc-use-ssl") for option in self.all_triton_options)

    @property
    def has_metrics(self) -> bool:
        """Whether Triton serves metrics."""
        return not _METRICS_OFF.intersection(self.triton_options)

    @property
    def follows_repository(self) -> bool:
        """Whether Triton follows changes in its repository after the start."""
        modes = [o.removeprefix(_CONTROL_MODE) for o in self.triton_options if _CONTROL_MODE in o]
        return bool(modes) and modes[-1] != "none"
