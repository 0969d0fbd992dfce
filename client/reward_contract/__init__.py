"""What every part of this project builds on: the contract, the errors' root, facts about the CPU.

Standard library only, and light: each process that serves the model imports it, too.
"""

from reward_contract.contract import (
    CONTRACT,
    INPUT_IDS,
    MODEL_NAME,
    PRIORITY_LEVELS,
    REWARD,
    Contract,
    TensorSpec,
)

__all__ = [
    "CONTRACT",
    "INPUT_IDS",
    "MODEL_NAME",
    "PRIORITY_LEVELS",
    "REWARD",
    "Contract",
    "TensorSpec",
]
