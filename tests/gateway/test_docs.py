"""The recipes of docs/gateway.md, run as they are printed there."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from generator import Generator
from rerankers.models.api_rankers import APIRanker

from reward_client.cli import command_parser
from reward_gateway.commands import gateway as command

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


def test_litellms_models_are_where_its_file_says(gateway: Any, generator: Generator) -> None:
    """Asked by the clients that LiteLLM's two prefixes select."""
    (block,) = blocks("yaml")
    url = gateway(upstream=generator.url)
    chat, rerank = (
        model["litellm_params"] for model in yaml.safe_load(block.replace(WHERE, url))["model_list"]
    )
    assert (chat["model"], rerank["model"]) == ("openai/my-model", "jina_ai/gpt2_reward")
    with openai.OpenAI(base_url=chat["api_base"], api_key=chat["api_key"]) as client:
        messages = [{"role": "user", "content": "Hi"}]
        assert client.chat.completions.create(model="my-model", messages=messages).choices
    ranker = APIRanker("gpt2_reward", rerank["api_key"], "jina", url=rerank["api_base"])
    assert len(ranker.rank("Hi", ["a", "b"]).results) == 2


def test_the_commands_of_the_page_are_such() -> None:
    (block,) = blocks("console")
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
    commands = [line[2:] for line in lines if line[:2] == ["gpt2-reward", "gateway"]]
    assert len(commands) == 2
    for arguments in commands:
        command_parser("gateway", command).parse_args(arguments)


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
