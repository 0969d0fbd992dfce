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
# also where TMPDIR names a folder that Triton cannot use
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # mkdtemp makes a private one inside


def make_folder() -> Path:
    """A temporary folder of the server's own, whose path Triton's Python backend can take.

    It starts its processes through a shell, and splits their arguments at spaces.

    Raises:
        HostError: there is none.
    """
    for parent in (tempfile.gettempdir(), *FOLDERS):
        if _is_plain(parent) and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="gpt2-reward-", dir=parent))
    raise HostError(
        f"none of {', '.join((tempfile.gettempdir(), *FOLDERS))} can be written and has a path "
        "without spaces; set TMPDIR to a folder that can"
    )


def _is_plain(path: str) -> bool:
    return path.isascii() and path.isprintable() and not set(path) & set(" '\"\\$`;&|<>()*?")


def environment(wheel: Wheel, folder: Path) -> dict[str, str]:
    """The server's environment.

    Raises:
        HostError: the shared libpython is missing.
    """
    return {
        # ONNX Runtime reports its use to its makers from 1.32 on, unless told otherwise
        "ORT_DISABLE_TELEMETRY": "1",
        # Triton 2.51's Python backend starts a model's instances at the same time, and now and then
        # one start then ends with boost's lock_exception
        "TRITON_PARALLEL_INSTANCE_LOADING": "0",
        **os.environ,
        "TMPDIR": str(folder),
        "LD_LIBRARY_PATH": library_path(wheel),
        # the stub takes its packages from the python3 that it finds first, and in some
        # Python versions ignores PYTHONPATH: let it find this environment's
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def arguments(
    options: ServerOptions, ports: Ports, *, models: Path, backends: Path, region: str
) -> Iterator[str]:
    """The command line after the program's name.

    Args:
        options: as asked for.
        ports: as chosen.
        models: what to serve.
        backends: the backend directory.
        region: what names of shared memory begin with.
    """
    yield f"--model-repository={models}"
    yield f"--backend-directory={backends}"
    yield f"--backend-config=python,shm-region-prefix-name={region}"
    yield f"--exit-timeout-secs={options.stop_timeout_s:.0f}"
    for service, port in (("grpc", ports.grpc), ("http", ports.http), ("metrics", ports.metrics)):
        yield f"--{service}-address={options.host}"
        yield f"--{service}-port={port}"
    # the same of models that are loaded at the same time
    yield "--model-load-thread-count=1"
    yield "--metrics-config=summary_latencies=true"  # percentiles: means hide what is slow
    yield from options.all_triton_options


def in_new_process(*, end_with_parent: bool) -> None:
    """To be run in the new process before the program: limits, and whom to follow into death.

    Every connection is a file: at a limit of 256, 400 idle ones shut callers out. So the limit
    is raised to what the system allows, up to a million.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # some systems allow a thousand million, which programs that go through all of them do not bear
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    if end_with_parent:  # be terminated when the parent dies, however it dies
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
