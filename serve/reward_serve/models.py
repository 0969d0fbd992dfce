"""The models that a server is shown, and which of their versions are quarantined."""

import contextlib
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from reward_contract import MODEL_NAME
from reward_contract.facts import Golden
from reward_contract.integrity import read_facts
from reward_serve.errors import RepositoryError
from reward_serve.log import Tell
from reward_serve.quarantine import Quarantine, Version
from reward_serve.view import View, models_of, versions_of


class Models:
    """The versions that a server is shown.

    Args:
        repository: the model repository.
        folder: where to show it.
        quarantine: versions that are left out.
        tell: told of versions that are put away, one line per call.
        only: names of the models to show; all if empty.

    Attributes:
        shown: versions that Triton sees.
        changed: set whenever `shown` changes.
    """

    def __init__(
        self,
        repository: Path,
        folder: Path,
        quarantine: Quarantine,
        tell: Tell,
        only: Sequence[str] = (),
    ) -> None:
        self.shown: list[Version] = []
        self.changed = threading.Event()
        self._view = View(repository, folder, quarantine, only)
        self._quarantine = quarantine
        self._tell = tell
        self._told: dict[Version, str] = {}
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show the repository for the first time.

        Raises:
            RepositoryError: no version is sound.
        """
        self.sync()
        if not self.shown:
            reasons = self._quarantine.reasons.items()
            why = "".join(f"\n  {version}: {reason}" for version, reason in reasons)
            raise RepositoryError(
                f"{self._view.repository} has no version whose files are as they were exported; "
                f"copy or export one again:{why}"
            )

    def sync(self) -> None:
        """Show what the repository has now."""
        with self._lock:
            with contextlib.suppress(FileNotFoundError):  # it changed meanwhile
                shown = self._view.sync()
                if shown != self.shown:
                    self.shown = shown
                    self.changed.set()
            self._report()

    def put_away(self, versions: Iterable[Version], reason: str) -> list[Version]:
        """Stop showing those of the versions that an older one can replace, and return them."""
        put = [version for version in dict.fromkeys(versions) if self._has_older(version)]
        for version in put:
            with contextlib.suppress(FileNotFoundError):  # already gone
                self._quarantine.put(version, self._view.path_of(version), reason)
        self.sync()
        return put

    @property
    def names(self) -> list[str]:
        """The models that are shown, in alphabetical order."""
        return sorted({version.model for version in self.shown})

    @property
    def withheld(self) -> list[str]:
        """The models of which no version is shown, because all of them are put away."""
        return sorted({version.model for version in self._quarantine.reasons} - {*self.names})

    def golden(self, model: str, number: int | None = None) -> Golden | None:
        """The golden rows of a version of a model, by default of the newest that is shown.

        Returns:
            None if there is no such version, or it has none.
        """
        numbers = [version.number for version in self.shown if version.model == model]
        if not numbers:
            return None
        chosen = Version(model, max(numbers) if number is None else number)
        facts = read_facts(self._view.path_of(chosen))
        return None if facts is None else facts.golden

    def _has_older(self, version: Version) -> bool:
        return version in self.shown and any(
            other.model == version.model and other.number < version.number for other in self.shown
        )

    def _report(self) -> None:
        for version, reason in self._quarantine.reasons.items():
            if self._told.get(version) != reason:
                self._tell(f"{version} is not served: {reason}")
        self._told = dict(self._quarantine.reasons)


def check_repository(repository: Path, models: Sequence[str] = ()) -> None:
    """Refuse a repository that has nothing to serve.

    Args:
        repository: the model repository.
        models: names of the models to serve; any if empty.

    Raises:
        RepositoryError: it does not exist, no model in it has a version, or one of `models` has
            none.
    """
    if not repository.is_dir():
        raise RepositoryError(
            f"there is no model repository at {repository}; make one and publish to it: "
            f"gpt2-reward export CHECKPOINT --repository {repository}"
        )
    found = [model.name for model in models_of(repository) if any(versions_of(model))]
    if missing := [name for name in models if name not in found]:
        raise RepositoryError(
            f"{repository} has no version of {', '.join(missing)}; it has "
            f"{', '.join(found) or 'no version of any model'}. Publish one: "
            f"gpt2-reward export CHECKPOINT --repository {repository} --name {missing[0]}"
        )
    if not found:
        raise RepositoryError(
            f"{repository} has no version of any model yet; publish one of {MODEL_NAME} first: "
            f"gpt2-reward export CHECKPOINT --repository {repository}"
        )
