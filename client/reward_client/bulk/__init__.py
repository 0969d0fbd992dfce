"""Scoring whole data sets: streamed, many requests in flight, resumable.

    input ──► source ──► lines ──► chunks ──► server, several at once ──► output, in order

`gpt2-reward score --input FILE --output FILE` is the command; `score_files` is what it calls.
docs/bulk.md says what the files hold and what a run that is killed leaves behind.
"""

from reward_client.bulk.columns import Columns
from reward_client.bulk.errors import MalformedLineError, OutputError, WorkerError
from reward_client.bulk.job import Format, Job, Shard, Totals
from reward_client.bulk.pipeline import score_file, score_files

__all__ = [
    "Columns",
    "Format",
    "Job",
    "MalformedLineError",
    "OutputError",
    "Shard",
    "Totals",
    "WorkerError",
    "score_file",
    "score_files",
]
