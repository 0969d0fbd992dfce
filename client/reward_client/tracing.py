"""OpenTelemetry spans, if its API is installed (`gpt2-reward[otel]`); otherwise nothing.

A call is one span, named after its method; its children are `tokenise` and one `attempt` for
each request, whose context travels to Triton in the `traceparent` header.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:  # not even its namespace
        return False


HAS_OPENTELEMETRY = _has_opentelemetry()


class Span:
    """A span, or the lack of one."""

    def __init__(self, inner: Any = None) -> None:  # noqa: ANN401  # None, or a span of the API
        self.inner = inner

    def set(self, name: str, value: str | int) -> None:
        """Set an attribute."""
        if self.inner is not None:
            self.inner.set_attribute(name, value)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers that propagate the trace; none if there is no span."""
        if self.inner is None:
            return ()
        from opentelemetry.propagate import inject  # noqa: PLC0415  # optional
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

        carrier: dict[str, str] = {}
        inject(carrier, set_span_in_context(self.inner))
        return tuple(carrier.items())


NO_SPAN = Span()


@contextmanager
def span(name: str, parent: Span | None = None) -> Iterator[Span]:
    """A span for the duration of the block, below `parent` or the caller's current one.

    It is never made current: a call may continue on other threads than it started on.
    """
    if not HAS_OPENTELEMETRY:
        yield NO_SPAN
        return
    from opentelemetry import trace  # noqa: PLC0415  # optional

    tracer = trace.get_tracer("reward_client")
    context = None if parent is None else trace.set_span_in_context(parent.inner)
    inner = tracer.start_span(f"reward_client.{name}", context)
    try:
        yield Span(inner)
    except BaseException as error:
        inner.set_status(trace.StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        inner.end()
