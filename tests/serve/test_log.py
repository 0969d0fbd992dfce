from reward_serve.log import reasons

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


def test_a_refused_option_is_told_without_the_usage() -> None:
    log = "tritonserver: unrecognized option '--x'\nUsage: tritonserver [options]\n  --help\n"
    assert reasons(log) == ("unrecognized option '--x'",)
