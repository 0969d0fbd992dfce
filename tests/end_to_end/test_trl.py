"""TRL's own trainer with the served model as its reward."""

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from trl import GRPOConfig, GRPOTrainer

from reward_client.rl.trl import AsyncTrlReward, TrlReward
from reward_export.conversations import conversations
from reward_serve.server import TritonServer

DATA = Path(__file__).parents[2] / "client" / "reward_text" / "data"


@pytest.fixture(scope="module")
def tokenizer() -> GPT2Tokenizer:
    tokenizer = GPT2Tokenizer(vocab=str(DATA / "encoder.json"), merges=str(DATA / "vocab.bpe"))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.mark.filterwarnings("default")  # TRL and transformers warn about each other
@pytest.mark.parametrize("kind", [TrlReward, AsyncTrlReward])
def test_grpo_is_rewarded_by_the_server(
    kind: type, server: TritonServer, tokenizer: GPT2Tokenizer, tmp_path: Path
) -> None:
    prompts = ["\n".join(dialogue.turns[:3]) + "\n" for dialogue in conversations()[:4]]
    policy = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32))
    trainer = GRPOTrainer(
        policy,
        reward_funcs=kind(server.grpc_url, name="accepted"),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            max_steps=2,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/accepted/mean" in entry]
    assert len(logged) == 2
    assert all(entry["rewards/accepted/std"] > 0 for entry in logged)
