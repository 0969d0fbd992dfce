"""From names on the command line to files, each with an output of its own."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reward_client.bulk.job import PACKED, Job, Shard
from reward_client.bulk.streams import STDIN
from reward_client.errors import InvalidInputError

ENDINGS = (".jsonl", ".parquet", ".csv", ".txt")
"""Name endings of the files that are taken from a directory, compressed or not."""

SIDE = "_score"  # Arrow, Spark and Ray ignore names that begin with _


def jobs_of(inputs: Sequence[str], output: Path, job: Job) -> list[Job]:
    """A job for each file.

    One file is scored into the file `output`. Several, a directory or a pattern are scored into
    the directory `output`, which mirrors them; so is one file if `output` is a directory.

    Args:
        inputs: files, directories and patterns such as `data/**/*.parquet`; `-` is standard
            input.
        output: a file or a directory; `-` is standard output.
        job: everything else. Its shard takes every N-th of several files, or blocks of lines
            of a single one.

    Raises:
        InvalidInputError: no file is found, two files would have the same output, or the output
            is not apart from the inputs.
    """
    if len(inputs) == 1 and not _is_many(inputs[0]):
        return [_one(Path(inputs[0]), output, job)]
    if output == STDIN or str(STDIN) in inputs:
        raise InvalidInputError(
            "standard input and output are for a single file; name files as --input and a "
            "directory as --output"
        )
    _check_apart(inputs, output)
    pairs = [pair for one in inputs for pair in _found(one, any_name=job.format is not None)]
    return _into_directory(pairs, output, job)


def _one(path: Path, output: Path, job: Job) -> Job:
    side = None
    if output.is_dir():
        _check_apart([str(path)], output)
        side, output = output / SIDE, output / _output_name(Path(path.name))
    if job.shard and output != STDIN:
        output = numbered(output, job.shard)
    return replace(job, input=path, output=output, side=side)


def numbered(output: Path, shard: Shard) -> Path:
    """`rewards.jsonl.gz` as `rewards-00003-of-00016.jsonl.gz`."""
    ending = "".join(output.suffixes[-2:] if output.suffix in PACKED else output.suffixes[-1:])
    stem = output.name.removesuffix(ending)
    return output.with_name(f"{stem}-{shard.number:05}-of-{shard.count:05}{ending}")


def _into_directory(pairs: Sequence[tuple[Path, Path]], folder: Path, job: Job) -> list[Job]:
    outputs = [_output_name(name) for _, name in pairs]
    if doubled := [str(name) for name, n in Counter(outputs).items() if n > 1]:
        raise InvalidInputError(
            f"several files would be scored into {folder / doubled[0]}; name the directory that "
            "they are in as --input, so that its folders are kept apart"
        )
    whole = replace(job, shard=None)
    jobs = [
        replace(whole, input=path, output=folder / name, side=folder / SIDE / name.parent)
        for (path, _), name in zip(pairs, outputs, strict=True)
    ]
    return jobs[job.shard.number - 1 :: job.shard.count] if job.shard else jobs


def _check_apart(inputs: Sequence[str], folder: Path) -> None:
    """Refuse outputs among the inputs, which the next run would score."""
    whole = folder.resolve()
    for name in inputs:
        path = Path(name).resolve()
        if whole in {path, *path.parents} or (path.is_dir() and path in whole.parents):
            raise InvalidInputError(f"{folder} and {name} overlap; write into a separate directory")


def _is_many(name: str) -> bool:
    return Path(name).is_dir() or (glob.has_magic(name) and not Path(name).exists())


def _found(name: str, *, any_name: bool) -> list[tuple[Path, Path]]:
    """The files of that name, and what to call them in the output's directory."""
    path = Path(name)
    if path.is_dir():
        found = sorted(
            one
            for one in path.rglob("*")
            if one.is_file() and _is_data(one, path, any_name=any_name)
        )
        if not found:
            raise InvalidInputError(f"{name} has no files named *{', *'.join(ENDINGS)}")
        return [(one, one.relative_to(path)) for one in found]
    if not _is_many(name):
        return [(path, Path(path.name))]
    base = Path(*_before_magic(path))
    found = sorted(Path(one) for one in glob.glob(name, recursive=True) if Path(one).is_file())  # noqa: PTH207  # Path.glob takes no absolute patterns
    if not found:
        raise InvalidInputError(f"no file is named {name}")
    return [(one, one.relative_to(base)) for one in found]


def _before_magic(path: Path) -> list[str]:
    parts = list(path.parts)
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return parts[:first]


def _is_data(path: Path, folder: Path, *, any_name: bool) -> bool:
    if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
        return False
    name = path.with_suffix("") if path.suffix in PACKED else path
    return any_name or name.suffix in ENDINGS


def _output_name(name: Path) -> Path:
    """The input's name if an output can be of that kind, else that name with .jsonl."""
    plain = name.with_suffix("") if name.suffix in PACKED else name
    is_kept = name.suffix == ".parquet" or plain.suffix == ".jsonl"
    return name if is_kept else name.with_name(name.name + ".jsonl")
