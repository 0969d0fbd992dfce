"""Manifests against Kubernetes' schemas, rules against promtool, metric names against a server."""

import copy
import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from promtool import promtool

from reward_client import RewardClient
from reward_serve.security import CONTROL, HEADER
from reward_serve.server import TritonServer

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE, GPU = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "gpu"
PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
KUBERNETES = "1.33"
RESTRICTED = [  # all but the key
    f"--grpc-restricted-protocol={CONTROL}:{HEADER}",
    f"--http-restricted-api={CONTROL}:{HEADER}",
]
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


def scripts() -> dict[str, str]:
    """What starts NVIDIA's image; $$ stands for the shell's $ in both."""
    overlay = read(GPU / "deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    shell, option, compose = read(DEPLOY / "compose.yaml")["services"]["triton"]["command"]
    assert [shell, option] == overlay["command"] == ["sh", "-ec"]
    (kubernetes,) = overlay["args"]
    return {"compose": compose.replace("$$", "$"), "kubernetes": kubernetes.replace("$$", "$")}


def started(script: str, folder: Path) -> list[str]:
    """The arguments that the script gives to tritonserver."""
    stub = folder / "tritonserver"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_nvidias_image_closes_control_as_the_command_does(name: str, tmp_path: Path) -> None:
    first, second = (started(scripts()[name], tmp_path) for _ in range(2))
    assert "--model-control-mode=none" in first
    closed = [option.rpartition("=") for option in first if "restricted" in option]
    assert [option for option, _, _ in closed] == RESTRICTED
    keys = {key for _, _, key in closed}
    assert len(keys) == 1
    assert len(keys.pop()) == 36, "a UUID"
    assert first[:-2] == second[:-2]
    assert first != second, "drawn at each start"


def test_kserve_closes_control_with_a_key_that_has_to_exist() -> None:
    model = read(DEPLOY / "kserve" / "inferenceservice.yaml")["spec"]["predictor"]["model"]
    closed = [option.rpartition("=") for option in model["args"] if "restricted" in option]
    assert [option for option, _, _ in closed] == RESTRICTED
    assert {key for _, _, key in closed} == {"$(CONTROL_KEY)"}
    (variable,) = model["env"]
    assert variable["name"] == "CONTROL_KEY"
    assert not variable["valueFrom"]["secretKeyRef"].get("optional"), "else the text is the key"


def test_kserves_pod_follows_the_schema_and_its_namespace() -> None:
    predictor = read(DEPLOY / "kserve" / "inferenceservice.yaml")["spec"]["predictor"]
    of_kserve = {"modelFormat", "protocolVersion", "storageUri", "runtimeVersion"}
    container = {key: value for key, value in predictor["model"].items() if key not in of_kserve}
    spec = {
        "containers": [{"name": "kserve-container", "image": "triton", **container}],
        "securityContext": predictor["securityContext"],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    resources = container["resources"]
    assert float(resources["requests"]["cpu"]) <= float(resources["limits"]["cpu"])
    # the namespace's profile asks for it, and KServe's runtime does not give it
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_prometheus_takes_its_files() -> None:
    assert "10 rules found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_prometheus_takes_its_file_for_clusters(tmp_path: Path) -> None:
    config = read(PROMETHEUS / "kubernetes.yml")
    (job,) = config["scrape_configs"]
    # Debian's Prometheus is built without Kubernetes' discovery: all but that is checked
    (discovery,) = job.pop("kubernetes_sd_configs")
    assert discovery["namespaces"]["names"] == [read(BASE / "kustomization.yaml")["namespace"]]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(RULES, tmp_path)
    assert "10 rules found" in promtool("check", "config", tmp_path / "prometheus.yml")
    compose = read(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    assert [job["job_name"]] == [other["job_name"] for other in compose], "which alerts ask for"
    spec = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    names = [port["name"] for port in spec["containers"][0]["ports"]]
    assert job["relabel_configs"][0]["regex"] in names


def test_alerts_fire_on_what_they_are_for() -> None:
    promtool("test", "rules", Path(__file__).parent / "rules_test.yml")


def test_every_alert_says_what_to_do() -> None:
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    rules = [rule for group in read(RULES)["groups"] for rule in group["rules"]]
    alerts = [rule["alert"] for rule in rules if "alert" in rule]
    assert len(alerts) == 9
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
