"""Score a data set of any size with Ray Data.

    pip install 'gpt2-reward[ray,chitchat]'
    gpt2-reward rows rows --chitchat                      # or rows of your own
    python examples/score_with_ray.py rows/test.jsonl rewards/ --url localhost:8001

The input is JSONL or Parquet with the columns `context` and `candidate`. Ray reads, batches, gives
the work of a lost worker to another, and writes Parquet; Triton scores. In a cluster, install the
package on every machine, and submit this script as a Ray job.
"""

import argparse

import ray
from ray.data import Dataset, SaveMode, TaskPoolStrategy
from ray.data.expressions import col

from reward_client import RewardClient
from reward_client.scorer import RewardScorer


def read(path: str) -> Dataset:
    """The rows of a file, a folder, or a bucket's URL."""
    return (
        ray.data.read_parquet(path)
        if path.endswith((".parquet", "/"))
        else ray.data.read_json(path)
    )


def newest_version(url: str) -> int:
    """The version to pin for the whole run: one that replaces it meanwhile has other rewards."""
    with RewardClient(url) as client:
        return client.server_info().model_versions[-1]


def main() -> None:
    """Score, write, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--url", default="localhost:8001", help="address of the reward server")
    parser.add_argument("--tasks", type=int, default=2, help="batches to score at the same time")
    given = parser.parse_args()
    scorer = RewardScorer(given.url, model_version=newest_version(given.url), on_error="null")
    rows = read(given.input).repartition(2 * given.tasks)  # otherwise a small file is one block
    scored = rows.map_batches(
        scorer, batch_size=512, batch_format="pyarrow", compute=TaskPoolStrategy(size=given.tasks)
    )
    scored.write_parquet(given.output, mode=SaveMode.ERROR)
    found = ray.data.read_parquet(given.output)
    n_rows, n_failed = found.count(), found.filter(expr=col("reward").is_null()).count()
    print(f"{n_rows:,} rows scored, {n_failed:,} of them without a reward: {given.output}")
    if "label" in found.columns():
        for row in found.groupby("label").mean("reward").sort("label").take_all():
            print(f"label {row['label']}: mean reward {row['mean(reward)']:+.3f}")


if __name__ == "__main__":
    main()
