"""Exceptions that serving raises on purpose, under the package's one root.

RewardError
└── ServeError
    ├── HostError        this machine lacks what the server needs
    ├── PortError        the server cannot listen on an address
    ├── SecurityError    certificates or keys are missing or do not belong together
    ├── RepositoryError  no repository, or nothing exported into it
    ├── VerifyError      a server cannot be compared with what was exported
    └── ServerLogError   tritonserver failed, for the reason that it logged
        ├── StartError   it ended while starting, or did not become ready
        │   └── CrashError          a signal ended it, or a model's process died, while starting
        └── EndedError   it ended by itself after it had been ready
            ├── ModelProcessError   a model's process has died, so it was stopped
            ├── UnhealthyError      it did not answer golden rows correctly, so it was stopped
            └── UpgradeError        it could not load anything any more, so it was stopped
"""

from pathlib import Path

from reward_contract.errors import RewardError


class ServeError(RewardError):
    """Base of the errors that serving raises on purpose."""


class HostError(ServeError):
    """This machine or environment lacks what the server needs."""


class PortError(ServeError):
    """The server cannot listen on an address.

    Attributes:
        port: the port number.
    """

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class SecurityError(ServeError):
    """Certificates or keys are missing or do not belong together."""


class RepositoryError(ServeError):
    """There is no repository, or nothing was exported into it."""


class VerifyError(ServeError):
    """A server does not answer, or there is nothing to compare it with."""


class ServerLogError(ServeError):
    """tritonserver failed.

    Attributes:
        reasons: the server's own error lines.
        log: path of its full log.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...], log: Path) -> None:
        super().__init__(message)
        self.reasons = reasons
        self.log = log


class StartError(ServerLogError):
    """tritonserver ended while starting, or did not become ready in time."""


class CrashError(StartError):
    """tritonserver or a model's process was killed at the start: it may work the next time."""


class EndedError(ServerLogError):
    """tritonserver was ready, and ended without being asked to."""


class ModelProcessError(EndedError):
    """A model's process has died; tritonserver, which does not replace it, was stopped."""


class UnhealthyError(EndedError):
    """tritonserver was stopped: it did not answer golden rows, or answered them wrongly."""


class UpgradeError(EndedError):
    """tritonserver was stopped: it was waiting for a failed version, and others changed."""
