"""Every Python block of the README and docs/ runs, page by page, against a server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from reward_client import CONTRACT
from reward_client.testing import FakeServer
from reward_text import FORMATS, Usage

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.name != "gateway.md"  # its recipes ask a gateway, in tests/gateway
    if BLOCK.search(page.read_text())
]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    usage = Usage(FORMATS["chai"])
    with FakeServer(lambda ids: ids[:, 0] / CONTRACT.vocab_size, usage=usage) as fake:
        yield fake


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages name, in the working folder."""
    authority = trustme.CA()
    client = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, server: FakeServer) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(page.read_text()):
        line = page.read_text()[: block.start(1)].count("\n")
        source = "\n" * line + re.sub(r"(localhost|127\.0\.0\.1):8001", server.url, block[1])
        exec(compile(source, str(page), "exec"), namespace)  # noqa: S102  # our own pages
    assert server.requests, "no block asked the server"


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "client.md"} <= {page.name for page in PAGES}
