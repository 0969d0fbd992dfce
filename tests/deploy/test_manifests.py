"""Manifests against Kubernetes' schemas, rules against promtool, metric names against a server."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest
from promtool import amtool, promtool
from rendering import find, rendered, restricted_faults

from reward_client import RewardClient
from reward_client.cli import command_parser
from reward_contract import MODEL_NAME
from reward_gateway.commands import gateway
from reward_gateway.metrics import Metrics
from reward_serve.health import Health
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
METRIC = re.compile(r"\b(?:nv|gpt2_reward)_[a-z0-9_]+")


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


OURS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}  # kinds of operators, not of Kubernetes
COMPONENTS = ("monitoring", "keda", "object-storage")
JOBS = [*(DEPLOY / "kubernetes" / "delivery").iterdir()]


@pytest.fixture(params=["base", "gpu"])
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("components", [(), *((name,) for name in COMPONENTS), COMPONENTS])
def test_what_kustomize_renders_follows_kubernetes_schemas(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    for item in rendered(tmp_path, overlay, components):
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "gpt2-reward"
        if item["kind"] not in OURS:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_the_gateway_follows_the_schemas_and_its_namespace(tmp_path: Path) -> None:
    objects = rendered(tmp_path, "gateway")
    for item in objects:
        assert item["metadata"]["namespace"] == "gpt2-reward"
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    deployment = find(objects, "Deployment")
    pod = deployment["spec"]["template"]
    assert [*restricted_faults(pod["spec"])] == []
    assert "replicas" not in deployment["spec"]
    target = find(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
    assert target == deployment["metadata"]["name"]
    policy = read(BASE / "networkpolicy.yaml")["spec"]["ingress"][0]["from"][0]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    command_parser("gateway", gateway).parse_args(container["args"])
    service = read(BASE / "service.yaml")
    assert f"dns:///{service['metadata']['name']}.gpt2-reward.svc:8001" in str(container["args"])


def test_no_manifest_is_left_out() -> None:
    for folder in (
        BASE,
        DEPLOY / "kubernetes" / "gateway",
        *(DEPLOY / "kubernetes" / "components").iterdir(),
    ):
        kustomization = read(folder / "kustomization.yaml")
        patches = [patch.get("path") for patch in kustomization.get("patches", [])]
        listed = {*kustomization.get("resources", []), *patches, "kustomization.yaml"} - {None}
        assert {path.name for path in folder.iterdir()} == listed


@pytest.mark.parametrize("components", [(), ("object-storage",)])
def test_the_namespace_admits_every_pod(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    objects = rendered(tmp_path, overlay, components)
    labels = find(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]
    assert [*restricted_faults(pod)] == []
    assert not pod["automountServiceAccountToken"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
    del pod["containers"][0]["securityContext"]["capabilities"]
    assert [*restricted_faults(pod)] == ["triton keeps capabilities"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_follow_the_schema_and_their_namespace(path: Path) -> None:
    job = read(path)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    assert [*restricted_faults(job["spec"]["template"]["spec"])] == []


def test_the_autoscaler_alone_says_how_many_replicas_there_are(tmp_path: Path) -> None:
    objects = rendered(tmp_path, "base")
    target = find(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = find(objects, "Deployment")
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    objects = rendered(tmp_path, "base", ("keda",))
    assert "HorizontalPodAutoscaler" not in {item["kind"] for item in objects}
    assert find(objects, "ScaledObject")["spec"]["scaleTargetRef"]["name"] == target["name"]


def test_a_rollout_needs_a_spare_gpu_nowhere(tmp_path: Path) -> None:
    deployment = find(rendered(tmp_path, "gpu"), "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    triton, verify = deployment["template"]["spec"]["containers"]
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert triton["image"] == read(DEPLOY / "compose.yaml")["services"]["triton"]["image"]
    assert triton["volumeMounts"], "the base's own are kept"
    assert "nvidia.com/gpu" not in verify["resources"]["limits"]


def test_probes_ask_for_golden_rows(tmp_path: Path) -> None:
    (triton,) = find(rendered(tmp_path, "base"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert triton["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "health"}
    gpu = find(rendered(tmp_path, "gpu"), "Deployment")["spec"]["template"]["spec"]
    triton, verify = gpu["containers"]
    assert "health" not in {port["name"] for port in triton["ports"]}
    assert verify["readinessProbe"]["exec"]["command"][:2] == ["gpt2-reward", "verify"]


def test_files_are_there_before_they_are_verified(tmp_path: Path) -> None:
    for name in ("base", "gpu"):
        objects = rendered(tmp_path, name, ("object-storage",))
        pod = find(objects, "Deployment")["spec"]["template"]["spec"]
        assert [step["name"] for step in pod["initContainers"]] == ["download", "verify-files"]
        models = next(volume for volume in pod["volumes"] if volume["name"] == "models")
        assert models.keys() == {"name", "emptyDir"}
        assert "PersistentVolumeClaim" not in {item["kind"] for item in objects}


def test_everything_selects_the_same_pods(tmp_path: Path) -> None:
    objects = rendered(tmp_path, "base")
    pods = find(objects, "Deployment")["spec"]
    labels = pods["template"]["metadata"]["labels"]
    spread = pods["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        pods["selector"]["matchLabels"],
        find(objects, "Service")["spec"]["selector"],
        find(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in spread),
    ]
    assert all(selector == labels for selector in selectors)
    assert [constraint["topologyKey"] for constraint in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert find(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    monitor = find(rendered(tmp_path, "base", ("monitoring",)), "ServiceMonitor")
    service = find(objects, "Service")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_the_operators_rules_are_the_same() -> None:
    rule = read(DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml")
    assert rule["spec"] == read(RULES)


def test_downloaded_versions_are_published_by_a_rename_once_they_are_right(
    repository: Path, tmp_path: Path
) -> None:
    served, incoming = tmp_path / "repository" / MODEL_NAME, tmp_path / "incoming"
    shutil.copytree(repository, served / ".incoming")
    shutil.copytree(served / ".incoming" / MODEL_NAME / "1", served / "1")
    (served / "1" / "kept").touch()
    shutil.copytree(served / "1", served / ".incoming" / MODEL_NAME / "2")
    shutil.copytree(served / ".incoming", incoming)
    container = read(DEPLOY / "kubernetes" / "delivery" / "download.yaml")["spec"]["template"][
        "spec"
    ]["containers"][0]
    words = [*container["command"], *container["args"]]
    env = {**os.environ, "MODELS": str(tmp_path)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    damaged = served / ".incoming" / MODEL_NAME / "2" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert subprocess.run(words, env=env, check=False, capture_output=True).returncode != 0
    assert not (served / "2").exists()
    shutil.copytree(incoming, served / ".incoming", dirs_exist_ok=True)  # the job's second try
    subprocess.run(words, env=env, check=True)
    assert sorted(path.name for path in served.iterdir()) == ["1", "2", "config.pbtxt"]
    assert (served / "1" / "kept").exists(), "a version is never replaced"


def test_a_pod_that_ends_has_time_for_requests_in_flight() -> None:
    spec = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    stop = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > stop + 30
    compose = read(DEPLOY / "compose.yaml")["services"]["triton"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > 30


def scripts() -> dict[str, str]:
    """The scripts that start NVIDIA's image; both files write the shell's $ as $$."""
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
    assert not variable["valueFrom"]["secretKeyRef"].get("optional"), "else the key is this text"


def test_kserves_pod_follows_the_schema_and_its_namespace() -> None:
    predictor = read(DEPLOY / "kserve" / "inferenceservice.yaml")["spec"]["predictor"]
    of_kserve = {"modelFormat", "protocolVersion", "storageUri", "runtimeVersion"}
    container = {key: value for key, value in predictor["model"].items() if key not in of_kserve}
    of_pods = predictor.keys() - {"model", "minReplicas", "maxReplicas"}
    spec = {
        "containers": [{"name": "kserve-container", "image": "triton", **container}],
        **{key: predictor[key] for key in of_pods},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    resources = container["resources"]
    assert float(resources["requests"]["cpu"]) <= float(resources["limits"]["cpu"])
    assert [*restricted_faults(spec)] == []
    kubernetes_validate.validate(read(DEPLOY / "kserve" / "service.yaml"), KUBERNETES, strict=True)


@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_alertmanager_takes_its_file_and_tells_whom_it_should(severity: str, receiver: str) -> None:
    file = PROMETHEUS / "alertmanager.yml"
    assert "SUCCESS" in amtool("check-config", file)
    told = amtool("config", "routes", "test", f"--config.file={file}", f"severity={severity}")
    assert told.strip() == receiver
    rules = [rule for group in read(RULES)["groups"] for rule in group["rules"]]
    severities = {rule["labels"]["severity"] for rule in rules if "alert" in rule}
    assert severities == {"page", "ticket"}


def test_prometheus_takes_its_files() -> None:
    assert "10 rules found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_prometheus_takes_its_file_for_clusters(tmp_path: Path) -> None:
    config = read(PROMETHEUS / "kubernetes.yml")
    job, launcher = config["scrape_configs"]
    for each in (job, launcher):
        # Debian's Prometheus is built without Kubernetes' discovery: all but that is checked
        (discovery,) = each.pop("kubernetes_sd_configs")
        assert discovery["namespaces"]["names"] == [read(BASE / "kustomization.yaml")["namespace"]]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(RULES, tmp_path)
    assert "10 rules found" in promtool("check", "config", tmp_path / "prometheus.yml")
    compose = read(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    assert [job["job_name"]] == [other["job_name"] for other in compose], "alerts select it"
    spec = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    names = [port["name"] for port in spec["containers"][0]["ports"]]
    assert job["relabel_configs"][0]["regex"] in names
    assert launcher["relabel_configs"][0]["regex"] in names


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
    of_gateway = generate_latest(Metrics().registry).decode()
    pages = f"{page}\n{Health().metrics()}\n{of_gateway.replace('# TYPE ', '')}"
    exposed = set(re.findall(r"^\w+", pages, re.MULTILINE))
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(panels) >= 8
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert {*re.findall(r"\$(\w+)", "\n".join(panels))} == variables
    texts = {"rules": RULES.read_text(), "hpa": (BASE / "hpa.yaml").read_text()}
    texts["keda"] = (
        DEPLOY / "kubernetes" / "components" / "keda" / "scaledobject.yaml"
    ).read_text()
    for name, text in {**texts, "dashboard": "\n".join(panels)}.items():
        used = set(METRIC.findall(text))
        assert used, name
        assert used <= exposed, name
    for reason in ("REJECTED", "BACKEND", "OTHER"):
        assert f'reason="{reason}"' in page
