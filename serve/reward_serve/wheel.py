"""Finds the tritonserver in the PyPI wheel `nvidia-pytriton`, and prepares it for a start.

Only the wheel's files are used: the server's binary, its Python backend with one stub per
Python version, and the shared libraries. Its Python API is not imported.
"""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from reward_serve.errors import HostError

BACKEND_SOURCE = Path(__file__).parent / "backend" / "model.py"


@dataclass(frozen=True, slots=True)
class Wheel:
    """Where the wheel's parts are.

    Attributes:
        server: the tritonserver binary.
        python_backend: folder with `libtriton_python.so`.
        stub: the process that runs Python models, for this Python version.
        libraries: shared libraries that all of them need.
    """

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path


def find_wheel() -> Wheel:
    """Find the wheel's parts in this environment.

    Raises:
        HostError: wrong platform or Python, or the wheel or ONNX Runtime is not installed.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise HostError(
            f"the Triton wheel is for Linux on x86_64, not {sys.platform} on "
            f"{platform.machine()}; use NVIDIA's container instead"
        )
    # before the packages: pip does not install the wheel under a Python that it has no stub for
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise HostError(
            f"the Triton wheel cannot run ONNX Runtime under Python {_python()}; "
            "use Python 3.10 to 3.12"
        )
    for package, name in (("pytriton", "nvidia-pytriton"), ("onnxruntime", "onnxruntime")):
        if importlib.util.find_spec(package) is None:
            raise HostError(f"{name} is not installed; pip install 'gpt2-reward[serve]'")
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018  # found above
    root = Path(spec.origin).parent / "tritonserver"
    stub = root / "python_backend_stubs" / _python() / "triton_python_backend_stub"
    if not stub.is_file():
        raise HostError(
            f"the installed nvidia-pytriton has no {stub.relative_to(root)}; "
            "pip install 'gpt2-reward[serve]' installs a version that has it"
        )
    return Wheel(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=stub,
        libraries=root.parent.parent / "nvidia_pytriton.libs",
    )


def library_path(wheel: Wheel) -> str:
    """LD_LIBRARY_PATH for the server and its stub.

    Raises:
        HostError: the shared libpython that the stub links against is missing.
    """
    folders = [str(wheel.libraries)]
    name = f"libpython{_python()}.so.1.0"
    own = Path(sysconfig.get_config_var("LIBDIR") or "") / name
    if own.is_file():  # a Python that was not installed by the system: pyenv, conda
        folders.append(str(own.parent))
    else:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            raise HostError(
                f"{name}, which Triton's Python stub links against, is missing; on Debian and "
                f"Ubuntu: apt-get install libpython{_python()}"
            ) from error
    if inherited := os.environ.get("LD_LIBRARY_PATH"):  # CUDA's, on a GPU host
        folders.append(inherited)
    return ":".join(folders)


def lay_out_backends(wheel: Wheel, folder: Path) -> None:
    """Make a backend directory: Triton's Python backend, and ours named `onnxruntime`.

    Triton treats a folder with a `model.py` as a backend written in Python if the Python backend
    is next to it. The 7 MB are copied: Triton refuses links that lead out of the directory.
    """
    python = folder / "python"
    python.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(wheel.python_backend / name, python)
    shutil.copy2(wheel.stub, python)
    ours = folder / "onnxruntime"
    ours.mkdir()
    shutil.copy2(BACKEND_SOURCE, ours)


def _python() -> str:
    major, minor = sys.version_info[:2]
    return f"{major}.{minor}"
