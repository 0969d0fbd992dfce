"""Scoring whole data sets: streamed, many requests in flight, resumable.

    input ──► source ──► lines ──► chunks ──► server, several at once ──► output, in order

`gpt2-reward score --input FILE --output FILE` is the command; `score_file` is what it calls.
docs/bulk.md tells what the files hold and what a run that is killed leaves behind.
"""

from reward_client.bulk.errors import MalformedLineError, OutputError
from reward_client.bulk.job import Format, Job, Totals
from reward_client.bulk.pipeline import score_file

__all__ = ["Format", "Job", "MalformedLineError", "OutputError", "Totals", "score_file"]
