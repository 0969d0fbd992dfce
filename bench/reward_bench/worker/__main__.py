"""One engine in a process of its own: reads a workload's name per line, answers each with JSON.

    python bench/reward_bench/worker/__main__.py ENGINE MODEL WORKLOADS.npz

Standalone on purpose: vLLM runs it in an environment that has none of this project. It has a folder
of its own because Python puts a script's folder first on its path: nothing else may be found there.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Score = Callable[[Array, Array], Array]  # padded ids, lengths -> rewards [B]
Batches = list[tuple[Array, Array]]  # of one workload, asked in this order
THREADS = int(os.environ.get("BENCH_THREADS", "2"))
SESSION_ENTRIES = json.loads(os.environ.get("BENCH_SESSION_ENTRIES", "{}"))  # as served
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")


def onnx(model: str, providers: list[Any]) -> Score:
    """Any graph with the contract's tensors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    for entry in SESSION_ENTRIES.items():
        options.add_session_config_entry(*entry)
    if providers[0] != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA installed by pip is not on the library path
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    if session.get_providers()[0] != providers[0]:  # ONNX Runtime only warns
        raise RuntimeError(f"ONNX Runtime could not start {providers[0]}")
    return lambda ids, _lengths: session.run(None, {"input_ids": ids})[0][:, 0]


def torch(model: str, attention: str) -> Score:
    """The model card's snippet."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(THREADS)
    loaded = AutoModelForSequenceClassification.from_pretrained(
        model, attn_implementation=attention
    ).eval()
    loaded = loaded.to(DEVICE, torch.float16 if DEVICE == "cuda" else torch.float32)

    def score(ids: Array, lengths: Array) -> Array:
        mask = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
        with torch.inference_mode():
            tokens = torch.from_numpy(ids.astype(np.int64)).to(DEVICE)
            logits = loaded(input_ids=tokens, attention_mask=mask.to(DEVICE)).logits
            rewards: Array = logits[:, 0].float().cpu().numpy()
            return rewards

    return score


def optimum(model: str) -> Score:
    """optimum-onnx: its own export, its own session."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSequenceClassification

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    loaded = ORTModelForSequenceClassification.from_pretrained(
        model, export=True, session_options=options
    )

    def score(ids: Array, lengths: Array) -> Array:
        mask = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
        tokens = torch.from_numpy(ids.astype(np.int64))
        rewards: Array = loaded(input_ids=tokens, attention_mask=mask).logits[:, 0].numpy()
        return rewards

    return score


def vllm(model: str, dtype: str, cache: str = "") -> Score:
    """The engine vLLM at the settings at which it was fastest: prefix cache on, blocks of 32.

    The cache is emptied before every request; with "-warm" only before a workload, so that it is
    as a chat's earlier turns leave it; with "-nocache" there is none.
    """
    from vllm import LLM, PoolingParams

    engine = LLM(
        model=model,
        runner="pooling",
        dtype=dtype,
        block_size=32,
        enable_prefix_caching=cache != "-nocache",
        max_model_len=1024,
        disable_log_stats=True,
    )
    raw = PoolingParams(use_activation=False, task="classify")

    def score(ids: Array, lengths: Array) -> Array:
        prompts = [
            {"prompt_token_ids": row[:length].tolist()}
            for row, length in zip(ids, lengths, strict=True)
        ]
        outputs = engine.classify(prompts, pooling_params=raw, use_tqdm=False)
        return np.array([output.outputs.probs[0] for output in outputs], np.float32)

    def cold(ids: Array, lengths: Array) -> Array:
        engine.reset_prefix_cache()
        return score(ids, lengths)

    if cache == "-warm":
        STARTS.append(engine.reset_prefix_cache)
    return score if cache else cold


STARTS: list[Callable[[], object]] = []  # called before a workload's first request, untimed
ENGINES: dict[str, Callable[[str], Score]] = {
    "onnx": lambda model: onnx(model, ["CPUExecutionProvider"]),
    "onnx-cuda": lambda model: onnx(model, ["CUDAExecutionProvider", "CPUExecutionProvider"]),
    "torch-eager": lambda model: torch(model, "eager"),
    "torch-sdpa": lambda model: torch(model, "sdpa"),
    "optimum": optimum,
    **{
        f"vllm-{dtype}{cache}": partial(vllm, dtype=dtype, cache=cache)
        for dtype in ("float32", "bfloat16", "float16")
        for cache in ("", "-warm", "-nocache")
    },
}


def main() -> None:
    """Answer requests until the input ends."""
    engine, model, file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")  # what libraries print to 1 must not be read as answers
    os.dup2(2, 1)
    arrays = np.load(file)
    score = ENGINES[engine](model)

    def answer(said: object) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    answer({"ready": engine})
    for line in sys.stdin:
        answer(timed(score, batches(arrays, line.strip())))


def batches(arrays: Mapping[str, Array], workload: str) -> Batches:
    """The workload's requests in order, as `write_requests` has numbered them."""
    numbers = range(sum(name.startswith(f"{workload}.ids.") for name in arrays))
    return [(arrays[f"{workload}.ids.{i}"], arrays[f"{workload}.lengths.{i}"]) for i in numbers]


def timed(score: Score, requests: Batches) -> dict[str, object]:
    """Rewards, seconds, and the processor seconds of all of this process's threads meanwhile."""
    for begin in STARTS:
        begin()
    start, processor = time.perf_counter(), time.process_time()
    rewards = np.concatenate([score(ids, lengths) for ids, lengths in requests])
    used = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
    }
    return {**used, "rewards": [float(reward) for reward in rewards]}


if __name__ == "__main__":
    main()
