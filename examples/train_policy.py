"""Train a small policy with TRL's GRPO, rewarded by the served model.

    pip install 'gpt2-reward[chitchat]' trl
    python examples/train_policy.py --policy gpt2 --output policy/

Prompts are the beginnings of real conversations, one turn per line, as `checkpoints/chitchat` reads
them; the policy writes the next line. Without --policy it is a tiny GPT-2 of random weights, which
learns nothing useful but shows within seconds that everything fits together.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl import GRPOConfig, GRPOTrainer

import reward_text
from reward_client.rl.trl import TrlReward
from reward_train.chitchat import dialogues
from reward_train.dialogues import split_of

N_TURNS = 4  # of a prompt
N_GENERATIONS = 8  # replies to a prompt, which are compared with each other


def prompts(n: int) -> Dataset:
    """The first turns of conversations that the reward model was trained on."""
    known = (one for one in dialogues() if split_of(one.id) == "train" and len(one.turns) > N_TURNS)
    return Dataset.from_list(
        [{"prompt": "\n".join(one.turns[:N_TURNS]) + "\n"} for one in islice(known, n)]
    )


def load(policy: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal model and its tokenizer, from the hub or a folder; a tiny random one if None."""
    if policy is None:
        data = Path(reward_text.__file__).parent / "data"
        tokenizer = GPT2Tokenizer(vocab=str(data / "encoder.json"), merges=str(data / "vocab.bpe"))
        model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=64))
    else:
        tokenizer = AutoTokenizer.from_pretrained(policy)
        model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def main() -> None:
    """Train, print the mean reward of each step, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", help="hub id or folder of a causal language model")
    parser.add_argument("--url", default="localhost:8001", help="address of the reward server")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("policy"))
    given = parser.parse_args()
    policy, tokenizer = load(given.policy)
    trainer = GRPOTrainer(
        policy,
        reward_funcs=TrlReward(given.url, name="accepted"),
        args=GRPOConfig(
            output_dir=str(given.output),
            max_steps=given.steps,
            per_device_train_batch_size=2 * N_GENERATIONS,
            num_generations=N_GENERATIONS,
            max_completion_length=32,
            learning_rate=1e-5,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=prompts(2 * given.steps),
        processing_class=tokenizer,
    )
    trainer.train()
    for entry in trainer.state.log_history:
        if "rewards/accepted/mean" in entry:
            mean, spread = entry["rewards/accepted/mean"], entry["rewards/accepted/std"]
            print(f"step {entry['step']}: mean reward {mean:+.3f}, standard deviation {spread:.3f}")
    trainer.save_model(str(given.output))


if __name__ == "__main__":
    main()
