"""The server at an address, held to the contract at first and whenever it may have changed."""

import math
from dataclasses import replace

from tritonclient.grpc import service_pb2

from reward_client import wire
from reward_client.asking import Asking
from reward_client.endpoints import Endpoint
from reward_client.errors import ModelNotFoundError, ModelNotReadyError
from reward_client.options import Terms
from reward_client.results import ModelInfo, ServerInfo
from reward_client.steps import Steps


class Introductions:
    """Holds servers to the contract.

    Args:
        asking: how they are asked.
    """

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def current(self, endpoint: Endpoint, terms: Terms) -> Steps[ServerInfo]:
        """What is known of the server there; it is asked again if it may have changed."""
        known = endpoint.known()
        if known is not None:
            return known
        if endpoint.info is None:
            return (yield from self.anew(endpoint, terms))
        try:
            return (yield from self._held(endpoint, endpoint.info, terms, terms.version))
        except BaseException:  # GeneratorExit as well: the next call has to check
            endpoint.held_at = -math.inf
            raise

    def anew(self, endpoint: Endpoint, terms: Terms) -> Steps[ServerInfo]:
        """What the server there says about itself now.

        Raises:
            ContractError: its model does not keep the contract.
            ServerError: there was no answer.
        """
        name = self._asking.options.model
        ask = self._asking.ask
        server = yield from ask(
            endpoint, "ServerMetadata", service_pb2.ServerMetadataRequest(), terms
        )
        model = service_pb2.ModelMetadataRequest(name=name, version=terms.version)
        metadata = yield from ask(endpoint, "ModelMetadata", model, terms)
        versions = tuple(sorted(int(number) for number in metadata.versions))
        if not versions:
            raise ModelNotFoundError(f"{endpoint.url} has no version of {name}", url=endpoint.url)
        endpoint.forget()
        info = ServerInfo(endpoint.url, server.name, server.version, name, versions, 1)
        return (yield from self._held(endpoint, info, terms, terms.version, *versions))

    def model(self, endpoint: Endpoint, terms: Terms) -> Steps[ModelInfo]:
        """The model that will probably answer there.

        Raises:
            ModelNotFoundError: the server does not have the version that is asked for.
            ServerError: there was no answer.
        """
        yield from self.current(endpoint, terms)
        known = endpoint.model(terms.version)
        if known is None:
            yield from self.anew(endpoint, terms)
            known = endpoint.model(terms.version)
        if known is None:
            name = self._asking.options.model
            wanted = f"version {terms.version} of {name}" if terms.version else name
            raise ModelNotFoundError(f"{endpoint.url} has no {wanted}", url=endpoint.url)
        return known

    def hold_version(self, endpoint: Endpoint, version: int, terms: Terms) -> Steps[ServerInfo]:
        """Hold a version that answered, and was not known there, to the contract.

        Raises:
            ModelNotReadyError: the version has been replaced again.
            ContractError: it does not keep the contract.
        """
        info = endpoint.info or (yield from self.anew(endpoint, terms))
        if version in endpoint.versions and info.of_version(version):
            return info
        try:
            return (yield from self._held(endpoint, info, terms, str(version), version))
        except ModelNotFoundError as error:
            raise ModelNotReadyError(str(error), url=error.url, code=error.code) from error

    def _held(
        self, endpoint: Endpoint, info: ServerInfo, terms: Terms, version: str, *versions: int
    ) -> Steps[ServerInfo]:
        name = self._asking.options.model
        request = service_pb2.ModelConfigRequest(name=name, version=version)
        response = yield from self._asking.ask(endpoint, "ModelConfig", request, terms)
        try:
            max_rows = wire.check_config(response.config, endpoint.url)
            all_versions = tuple(sorted({*info.model_versions, *versions}))
            models = tuple(
                wire.model_info(response.config, one, endpoint.url) for one in all_versions
            )
        except Exception:
            endpoint.forget()
            raise
        held = replace(info, model_versions=all_versions, max_batch_rows=max_rows, models=models)
        endpoint.hold(held, *versions)
        return held
