"""Manifests against Kubernetes' schemas, rules against promtool, metric names against a server."""

import copy
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from reward_client import RewardClient
from reward_serve.server import TritonServer

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE, GPU = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "gpu"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
KUBERNETES = "1.33"
METRIC = re.compile(r"\bnv_[a-z0-9_]+")


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def resources() -> list[Path]:
    return [BASE / name for name in read(BASE / "kustomization.yaml")["resources"]]


@pytest.mark.parametrize("path", resources(), ids=lambda path: path.stem)
def test_base_resources_follow_kubernetes_schemas(path: Path) -> None:
    kubernetes_validate.validate(read(path), KUBERNETES, strict=True)


def test_no_manifest_is_left_out() -> None:
    listed = {path.name for path in resources()} | {"kustomization.yaml"}
    assert {path.name for path in BASE.iterdir()} == listed


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge as kustomize does it: containers by name, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        keys = dict.fromkeys([*base, *patch])
        return {
            key: merged(base[key], patch[key])
            if key in base and key in patch
            else copy.deepcopy(patch.get(key, base.get(key)))
            for key in keys
        }
    if isinstance(base, list) and all(isinstance(item, dict) and "image" in item for item in patch):
        patches = {item["name"]: item for item in patch}
        assert patches.keys() <= {item["name"] for item in base}, "a patch of no container"
        return [merged(item, patches.get(item["name"], {})) for item in base]
    return copy.deepcopy(patch)


def test_the_gpu_overlay_gives_a_deployment_with_one_gpu_a_replica() -> None:
    assert read(GPU / "kustomization.yaml")["resources"] == ["../base"]
    deployment = merged(read(BASE / "deployment.yaml"), read(GPU / "deployment.yaml"))
    kubernetes_validate.validate(deployment, KUBERNETES, strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == read(DEPLOY / "compose.yaml")["services"]["triton"]["image"]
    assert container["volumeMounts"], "the base's own are kept"


def test_pods_run_without_privileges() -> None:
    spec = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    models = next(mount for mount in container["volumeMounts"] if mount["name"] == "models")
    assert models["readOnly"]


def test_everything_selects_the_same_pods() -> None:
    labels = read(BASE / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        read(BASE / "deployment.yaml")["spec"]["selector"]["matchLabels"],
        read(BASE / "service.yaml")["spec"]["selector"],
        read(BASE / "pdb.yaml")["spec"]["selector"]["matchLabels"],
        read(BASE / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    target = read(BASE / "hpa.yaml")["spec"]["scaleTargetRef"]
    assert target["name"] == read(BASE / "deployment.yaml")["metadata"]["name"]


def test_a_pod_that_ends_has_time_for_requests_in_flight() -> None:
    spec = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    stop = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > stop + 30
    compose = read(DEPLOY / "compose.yaml")["services"]["triton"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > 30


def test_prometheus_takes_its_files() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; Debian's package prometheus has it")
    config = DEPLOY / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        [promtool, "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "6 rules found" in done.stdout


def test_every_alert_says_what_to_do() -> None:
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    rules = [rule for group in read(RULES)["groups"] for rule in group["rules"]]
    alerts = [rule["alert"] for rule in rules if "alert" in rule]
    assert len(alerts) == 4
    assert [alert for alert in alerts if alert not in operations] == []


def test_every_metric_is_one_that_the_server_exposes(server: TritonServer) -> None:
    with RewardClient(server.grpc_url) as client:
        client.score(["Hi"])
    page = urllib.request.urlopen(server.metrics_url).read().decode()
    exposed = set(re.findall(r"^nv_[a-z0-9_]+", page, re.MULTILINE))
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(panels) >= 8
    texts = {"rules": RULES.read_text(), "hpa": (BASE / "hpa.yaml").read_text()}
    for name, text in {**texts, "dashboard": "\n".join(panels)}.items():
        used = set(METRIC.findall(text))
        assert used, name
        assert used <= exposed, name
    for reason in ("REJECTED", "BACKEND", "OTHER"):
        assert f'reason="{reason}"' in page
