"""What serving raises on purpose, under the package's one root.

RewardError
└── ServeError
    ├── HostError        this machine lacks what the server needs
    ├── PortError        an address cannot be listened on
    ├── SecurityError    certificates or keys that do not fit together
    ├── RepositoryError  no repository, or nothing exported into it
    ├── VerifyError      a server cannot be compared with what was exported
    └── ServerLogError   tritonserver failed, with its own reason
        ├── StartError   it ended while starting, or did not become ready
        │   └── CrashError          a signal ended it, or a model's process, while starting
        └── EndedError   it ended by itself after it had been ready
            ├── ModelProcessError   a model's process has died, so it was stopped
            ├── UnhealthyError      it did not answer golden rows rightly, so it was stopped
            └── UpgradeError        it could load nothing any more, so it was stopped
"""

from pathlib import Path

from reward_contract.errors import RewardError


class ServeError(RewardError):
    """The server is not running."""


class HostError(ServeError):
    """This machine or environment lacks what the server needs."""


class PortError(ServeError):
    """An address cannot be listened on.

    Attributes:
        port: its number.
    """

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class SecurityError(ServeError):
    """Certificates or keys that are missing or do not fit together."""


class RepositoryError(ServeError):
    """There is no repository, or nothing was exported into it."""


class VerifyError(ServeError):
    """A server does not answer, or there is nothing to compare it with."""


class ServerLogError(ServeError):
    """tritonserver failed.

    Attributes:
        reasons: the server's own error lines.
        log: where its full log stands.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...], log: Path) -> None:
        super().__init__(message)
        self.reasons = reasons
        self.log = log


class StartError(ServerLogError):
    """tritonserver ended while starting, or did not become ready in time."""


class CrashError(StartError):
    """A signal ended tritonserver or a model's process during the start: it may work next time."""


class EndedError(ServerLogError):
    """tritonserver was ready, and ended without being asked to."""


class ModelProcessError(EndedError):
    """A model's process has died; tritonserver, which does not mend that, was stopped."""


class UnhealthyError(EndedError):
    """It did not answer golden rows, or wrongly; it was stopped."""


class UpgradeError(EndedError):
    """A version's process died while loading, Triton waits for it, and there is another version."""
