"""The recipes of docs/gateway.md, as they stand there."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from generator import Generator

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text("utf-8")
WHERE = "http://localhost:5000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda text: text.split()[1])
def test_a_recipe_in_python(
    gateway: Any, generator: Generator, block: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block.replace(WHERE, gateway(upstream=generator.url))
    exec(compile(code, "docs/gateway.md", "exec"), {})  # noqa: S102  # our own page
    assert capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("block", blocks("sh"))
def test_a_recipe_for_curl(gateway: Any, block: str) -> None:
    done = subprocess.run(
        ["bash", "-c", block.replace(WHERE, gateway())], capture_output=True, text=True, check=True
    )
    assert '"relevance_score"' in done.stdout


def test_a_recipe_in_javascript(gateway: Any, browser: Any) -> None:
    (block,) = blocks("js")
    url = gateway()
    browser.get(url)
    script = "const done = arguments[0]; (async () => {" + block.replace(WHERE, url)
    best = browser.execute_async_script(script + "return best; })().then(done, done)")
    assert best["document"]["text"] == "Lovely! And yours?"
