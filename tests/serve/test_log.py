import io
import json
import threading
from pathlib import Path

import pytest

from reward_serve import log as server_log
from reward_serve.loads import Loads
from reward_serve.log import bound, follow, keep, reasons
from reward_serve.quarantine import Version
from reward_serve.structured import JsonLines

FAILED = (
    "E1123 07:04:21.0 5385 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal: "
    r'ValueError: no such file\n\nAt:\n  model.py(3): initialize\n"'
)
LOG = f"""
W1123 07:04:20.080571 5385 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
E1123 07:04:20.080796 5385 server.cc:241] "CudaDriverHelper has not been initialized."
{FAILED}
{FAILED}
I1123 07:04:21.0 5385 server.cc:604] "and so on"
"""


def test_the_reason_is_told_once_without_noise_and_traceback() -> None:
    assert reasons(LOG) == ("failed to load 'm' version 1: Internal: ValueError: no such file",)


def test_without_an_error_line_the_last_lines_are_told() -> None:
    assert reasons("one\ntwo\n") == ("one", "two")
    assert reasons(LOG.replace(FAILED, "Signal (11) received.")) == ("Signal (11) received.",) * 2
    assert reasons(LOG.replace(FAILED, "")) == (), "noise is not why a signal ended it"


def test_a_refused_option_is_told_without_the_usage() -> None:
    log = "tritonserver: unrecognized option '--x'\nUsage: tritonserver [options]\n  --help\n"
    assert reasons(log) == ("unrecognized option '--x'",)


def test_a_failure_that_names_cuda_is_no_noise() -> None:
    why = "Internal: ConfigError: a GPU instance needs CUDAExecutionProvider"
    log = f"""
E1123 07:04:21.0 5385 backend_model.cc:692] "ERROR: Failed to create instance: {why}"
E1123 07:04:21.0 5385 model_lifecycle.cc:642] "failed to load 'm' version 1: {why}"
"""
    assert reasons(log) == (f"failed to load 'm' version 1: {why}",)


def test_what_is_wrong_with_a_configuration_is_told() -> None:
    log = '[libprotobuf ERROR /a/text_format.cc:337] Error parsing: 12:14: no field named "x".\n'
    assert reasons(log) == ('Error parsing: 12:14: no field named "x".',)


def test_a_log_is_followed_to_its_last_byte(tmp_path: Path) -> None:
    log, shown, ended = tmp_path / "log", io.BytesIO(), threading.Event()
    log.write_bytes(b"first\n")
    follower = threading.Thread(target=follow, args=(log, shown, ended))
    follower.start()
    with log.open("ab") as growing:
        growing.write(b"last, no newline")
    ended.set()
    follower.join(10)
    assert shown.getvalue() == b"first\nlast, no newline"


BEGUN = 'I1123 07:04:20.0 5385 model_lifecycle.cc:472] "loading: m:{}"\n'
LOADED = "I1123 07:04:22.0 5385 model_lifecycle.cc:839] \"successfully loaded 'm'\"\n"


def test_loads_are_followed_while_the_log_grows_and_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(BEGUN.format(1) + LOADED + BEGUN.format(2)[:-10])
    loads = Loads(log)
    loads.update()
    assert (loads.begun, loads.failed) == ({}, {}), "half a line says nothing yet"
    with log.open("a") as growing:
        growing.write(BEGUN.format(2)[-10:] + BEGUN.format(3))
    loads.update()
    assert [*loads.begun] == [Version("m", 2), Version("m", 3)]
    log.write_text(FAILED.replace("version 1", "version 2") + "\n")  # shorter: it was cut
    loads.update()
    assert [*loads.begun] == [Version("m", 3)]
    assert [*loads.failed] == [Version("m", 2)]
    assert loads.failed[Version("m", 2)].endswith("ValueError: no such file")


def test_the_time_of_a_load_begins_when_the_one_before_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    log = tmp_path / "log"
    waiting = BEGUN.replace("m:", "other:").format(1)
    log.write_text(BEGUN.format(1) + waiting)
    loads = Loads(log)
    loads.update()
    now[0] = 70.0
    with log.open("a") as growing:
        growing.write(LOADED)
    loads.update()
    assert loads.begun == {Version("other", 1): 70.0}


def test_a_log_is_cut_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "MAX_LOG_BYTES", 100)
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as growing:
        growing.write(b"x" * 100)
        bound(log)
        assert log.stat().st_size == 100
        growing.write(b"end")
        bound(log)
        growing.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "log.1").read_bytes() == b"x" * 47 + b"end"


def test_no_more_than_ten_kept_logs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = tmp_path / "tritonserver.log"
    log.write_text("why")
    kept = [keep(log) for _ in range(12)]
    assert kept[-1].read_text() == "why"
    assert len([*tmp_path.glob("gpt2-reward-*.log")]) == 10


def test_a_log_as_json_keeps_level_place_and_message() -> None:
    shown = io.BytesIO()
    lines = JsonLines(shown)
    lines.write(f"{FAILED}\nTrace".encode())
    lines.write(b"back of a \xff process\n\nunfinished")
    first, second = map(json.loads, shown.getvalue().splitlines())
    del first["time"], second["time"]
    why = FAILED.partition('"')[2].rstrip('"')
    place = "model_lifecycle.cc:642"
    assert first == {"source": "tritonserver", "level": "error", "place": place, "message": why}
    assert second == {"source": "tritonserver", "message": "Traceback of a \ufffd process"}
