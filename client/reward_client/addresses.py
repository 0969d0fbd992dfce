"""Which server addresses are accepted, and what to write instead of one that is not."""

import re

_WEB = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE)
_RESOLVED = ("dns:", "xds:")  # names that gRPC looks up; each may have several addresses
_LISTS = ("ipv4:", "ipv6:")
_LOCAL = ("unix:", "unix-abstract:", "vsock:")
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/,\[\]]+):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535


def check_address(url: str) -> None:
    """Refuse an address that gRPC would misread or could never reach.

    Args:
        url: `host:port`, `[ipv6]:port`, or with one of gRPC's schemes: `dns:///host:port`,
            `ipv4:host:port,host:port`, `unix:path`.

    Raises:
        ValueError: the address is refused; the message says what to write instead.
    """
    if not isinstance(url, str):
        raise ValueError(f"addresses are text such as 'localhost:8001', not {type(url).__name__}")  # noqa: TRY004  # ValueError, as for every other bad address
    if url.startswith(_LOCAL):
        return
    if url.startswith(_LISTS):
        for one in url.partition(":")[2].split(","):
            _check_host_port(one, url)
        return
    if url.startswith(_RESOLVED):
        _check_host_port(url.partition(":")[2].rpartition("/")[2], url)
        return
    if web := _WEB.fullmatch(url):
        _refuse_web(url, web["scheme"].lower(), web["rest"].rstrip("/"))
    if "," in url or any(character.isspace() for character in url):
        parts = [part for part in re.split(r"[,\s]+", url) if part]
        raise ValueError(f"{url!r} looks like several addresses; give a list: {parts}")
    _check_host_port(url, url)


def has_many_addresses(url: str) -> bool:
    """Whether gRPC may spread the calls to this address over several servers."""
    return url.startswith(_RESOLVED) or (url.startswith(_LISTS) and "," in url)


def _refuse_web(url: str, scheme: str, rest: str) -> None:
    host_port = rest.partition("/")[0] or "localhost:8001"
    tls = " with Connection(tls=TLS())" if scheme in {"https", "grpcs"} else ""
    raise ValueError(
        f"{url!r} is not a gRPC address, which has no {scheme}:// prefix; write "
        f"{host_port!r}{tls}, with Triton's gRPC port, 8001 unless changed"
    )


def _check_host_port(address: str, url: str) -> None:
    found = _HOST_PORT.fullmatch(address)
    if found is not None and 0 < int(found["port"]) <= _MAX_PORT:
        return
    if "/" in address:
        remedy = f"write {address.partition('/')[0]!r}, without a slash or path"
    elif found is not None:
        remedy = f"ports are from 1 to {_MAX_PORT}, not {found['port']}"
    elif ":" not in address.rpartition("]")[2]:
        remedy = f"the port is missing; write '{address or 'localhost'}:8001' for Triton's default"
    else:
        remedy = "write host:port, or [address]:port for IPv6"
    raise ValueError(f"{url!r} is not an address of a gRPC server: {remedy}")
