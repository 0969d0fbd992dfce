"""What the exporter and the server have to know of the processor; standard library only."""

from pathlib import Path

EXACT_INT8 = ("session.x64quantprecision", "1")
"""ONNX Runtime's session option for the int8 product that does not saturate.

It is 2.5 times slower where the fast one is exact, so it is for processors where it is not.
"""


def int8_saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the fast product of uint8 and int8 loses high sums: on x86 without VNNI.

    There ONNX Runtime adds pairs of products in 16 bits (VPMADDUBSW).
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False  # not Linux: nothing is known
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(flags) and not {"avx512_vnni", "avx_vnni"} & set(flags)
