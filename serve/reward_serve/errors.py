"""What serving raises on purpose, under the package's one root.

RewardError
└── ServeError
    ├── HostError        this machine lacks what the server needs
    ├── PortError        a port is taken
    ├── RepositoryError  no repository, or nothing exported into it
    └── StartError       tritonserver ended, or did not become ready; with its own reason
"""

from pathlib import Path

from reward_client.errors import RewardError


class ServeError(RewardError):
    """The server is not running."""


class HostError(ServeError):
    """This machine or environment lacks what the server needs."""


class PortError(ServeError):
    """A port is taken.

    Attributes:
        port: its number.
    """

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class RepositoryError(ServeError):
    """There is no repository, or nothing was exported into it."""


class StartError(ServeError):
    """tritonserver ended while starting, or did not become ready in time.

    Attributes:
        reasons: the server's own error lines.
        log: where its full log stands.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...], log: Path) -> None:
        super().__init__(message)
        self.reasons = reasons
        self.log = log
