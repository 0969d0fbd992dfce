"""What tritonserver is started with: a folder, an environment, limits, arguments."""

import ctypes
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reward_serve.errors import HostError
from reward_serve.options import ServerOptions
from reward_serve.ports import Ports
from reward_serve.wheel import Wheel, library_path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
MOST_FILES = 1 << 20
# used also if TMPDIR names a folder that Triton cannot use
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # mkdtemp makes a private one inside


def make_folder() -> Path:
    """Make a temporary folder for one server, with a path that Triton's Python backend can handle.

    The backend starts its processes through a shell, and splits their arguments at spaces.

    Raises:
        HostError: no folder for temporary files has such a path and can be written.
    """
    for parent in (tempfile.gettempdir(), *FOLDERS):
        if _is_plain(parent) and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="gpt2-reward-", dir=parent))
    raise HostError(
        f"none of {', '.join((tempfile.gettempdir(), *FOLDERS))} is writable with a path "
        "free of spaces and special characters; set TMPDIR to a folder that is"
    )


def _is_plain(path: str) -> bool:
    return path.isascii() and path.isprintable() and not set(path) & set(" '\"\\$`;&|<>()*?")


def environment(wheel: Wheel, folder: Path) -> dict[str, str]:
    """The server's environment.

    Raises:
        HostError: the shared libpython is missing.
    """
    return {
        # from 1.32 on, ONNX Runtime sends usage data to its makers unless told not to
        "ORT_DISABLE_TELEMETRY": "1",
        # Triton 2.51's Python backend starts a model's instances in parallel, and occasionally
        # one of them then fails with boost's lock_exception
        "TRITON_PARALLEL_INSTANCE_LOADING": "0",
        **os.environ,
        "TMPDIR": str(folder),
        "LD_LIBRARY_PATH": library_path(wheel),
        # the stub takes its packages from the first python3 that it finds, and with some
        # Python versions ignores PYTHONPATH: let it find this environment's
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def arguments(
    options: ServerOptions, ports: Ports, *, models: Path, backends: Path, region: str
) -> Iterator[str]:
    """The arguments of tritonserver.

    Args:
        options: how to run it.
        ports: the chosen ports.
        models: the folder of the models to serve.
        backends: the backend directory.
        region: prefix of the names of shared memory regions.
    """
    yield f"--model-repository={models}"
    yield f"--backend-directory={backends}"
    yield f"--backend-config=python,shm-region-prefix-name={region}"
    yield f"--exit-timeout-secs={options.stop_timeout_s:.0f}"
    for service, port in (("grpc", ports.grpc), ("http", ports.http), ("metrics", ports.metrics)):
        yield f"--{service}-address={options.host}"
        yield f"--{service}-port={port}"
    # not in parallel, as with instances above
    yield "--model-load-thread-count=1"
    yield "--metrics-config=summary_latencies=true"  # percentiles: means hide what is slow
    yield from options.all_triton_options


def in_new_process(*, end_with_parent: bool) -> None:
    """Raise the limit of open files, and tie the process's life to its parent's.

    Runs in the new process before the program. Every connection is a file: at a limit of 256, 400
    idle ones shut callers out. So the limit is raised to what the system allows, up to a million.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # some systems allow a billion, which is too many for programs that loop over all of them
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    if end_with_parent:  # be terminated when the parent dies, however it dies
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
