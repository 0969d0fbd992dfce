"""What importing the client costs, and what it offers."""

import subprocess
import sys

import reward_client


def test_importing_the_client_loads_no_framework() -> None:
    code = (
        "import sys, reward_client, reward_client.cli, reward_client.commands.score\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnx_ir', 'onnxruntime', 'pytriton'}\n"
        "own = {'reward_export', 'reward_serve'}\n"
        "sys.exit(' '.join((heavy | own) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_evaluating_needs_no_framework_either() -> None:
    code = (
        "import sys, reward_train.evaluate.command\n"
        "heavy = {'torch', 'transformers', 'datasets', 'onnx', 'onnxruntime', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_exported_names_are_kept() -> None:
    assert reward_client.__all__ == [
        "CONTRACT",
        "TLS",
        "AsyncRewardClient",
        "Connection",
        "Contract",
        "ContractError",
        "Counts",
        "DeadlineError",
        "InternalError",
        "InvalidInputError",
        "ModelNotFoundError",
        "ModelNotReadyError",
        "NonFiniteRewardError",
        "OverloadedError",
        "Priority",
        "RankedCandidate",
        "Ranking",
        "RejectedError",
        "Retry",
        "RewardClient",
        "RewardError",
        "Scores",
        "ServerError",
        "ServerInfo",
        "Tokenizer",
        "Truncation",
        "UnavailableError",
    ]
    assert all(hasattr(reward_client, name) for name in reward_client.__all__)
