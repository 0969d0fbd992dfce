"""What the exporter and the server need to know about the processor."""

EXACT_INT8 = {"session.x64quantprecision": "1"}


def session_entries(cpuinfo: str = "/proc/cpuinfo") -> dict[str, str]:
    """Entries that ONNX Runtime's sessions of our graphs need on this processor.

    The int8 product that does not saturate is 2.5 times slower on processors whose fast product
    is exact, so only the others get it.
    """
    return EXACT_INT8 if int8_saturates(cpuinfo) else {}


def int8_saturates(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the fast product of uint8 and int8 saturates, as it does on x86 without VNNI.

    There, ONNX Runtime adds pairs of products in 16 bits (VPMADDUBSW).
    """
    try:
        with open(cpuinfo, encoding="utf-8") as file:  # noqa: PTH123  # pathlib costs 5 ms
            lines = file.read().splitlines()
    except OSError:
        return False  # not Linux: nothing is known
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(flags) and not {"avx512_vnni", "avx_vnni"} & set(flags)
