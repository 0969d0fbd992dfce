"""Build the project's distributions, and environments to install them into."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(source: Path, output: Path, *options: str) -> Path:
    """Build without isolation, so that no test needs a network. -> output"""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, f"--outdir={output}"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def make_environment(folder: Path) -> Path:
    """Make a bare virtual environment. -> its folder of commands"""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin"


def shell_environment(commands: Path) -> dict[str, str]:
    """Variables of a shell in which that virtual environment is active, and this one is not."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    return {**inherited, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


def where_packages_are_from(commands: Path, folder: Path) -> list[str]:
    """The file of each of the project's packages, and Python's search path, as seen in `folder`."""
    code = (
        "import sys, reward_contract, reward_text, reward_client, reward_train, reward_serve\n"
        "import reward_export\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n in (\n"
        "    'reward_contract', 'reward_text', 'reward_client',\n"
        "    'reward_train', 'reward_serve', 'reward_export')], *sys.path, sep='\\n')\n"
    )
    done = subprocess.run(
        [str(commands / "python"), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=shell_environment(commands),
    )
    return done.stdout.splitlines()
