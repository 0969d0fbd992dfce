"""What kustomize renders from deploy/kubernetes, and checks of its objects."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERNETES = Path(__file__).parents[1] / "deploy" / "kubernetes"
Object = dict[str, Any]


def rendered(folder: Path, overlay: str, components: Sequence[str] = ()) -> list[Object]:
    """The objects of an overlay with components, rendered in a copy below `folder`."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl here; 1.21 or newer is needed")
    shutil.copytree(KUBERNETES, folder / "kubernetes", dirs_exist_ok=True)
    own = folder / "kubernetes" / "own"
    own.mkdir(exist_ok=True)
    kustomization = {
        "resources": [f"../{overlay}"],
        "components": [f"../components/{name}" for name in components],
        "namespace": "gpt2-reward",
    }
    (own / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        [program, "kustomize", str(own)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [*yaml.safe_load_all(done.stdout)]


def find(objects: Sequence[Object], kind: str) -> Object:
    """The only object of a kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def restricted_faults(pod: Object) -> Iterator[str]:
    """What Kubernetes' profile `restricted` would refuse in a pod's specification.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    whole = pod.get("securityContext", {})
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "a host's namespace"
    for volume in pod.get("volumes", []):
        if not {"configMap", "emptyDir", "persistentVolumeClaim", "secret"} & volume.keys():
            yield f"volume {volume['name']}"
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        name, own = container["name"], container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may gain privileges"
        if own.get("capabilities", {}) != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if not {**whole, **own}.get("runAsNonRoot") or {**whole, **own}.get("runAsUser") == 0:
            yield f"{name} may be root"
        profile = {**whole, **own}.get("seccompProfile", {})
        if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
            yield f"{name} has no seccomp profile"
