"""What result files say about the machine."""

from pathlib import Path

import pytest

from reward_bench.machine import cpu_model, has_bfloat16


@pytest.mark.parametrize(
    ("flags", "said", "bfloat16"),
    [
        ("fpu avx avx2 fma", "AMD EPYC (AVX2)", False),
        ("avx2 avx512f avx512_vnni avx512_bf16", "AMD EPYC (AVX2, AVX-512, VNNI, bfloat16)", True),
        ("avx2 avx_vnni", "AMD EPYC (AVX2, VNNI)", False),
        (
            "avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8",
            "AMD EPYC (AVX2, AVX-512, VNNI, bfloat16, AMX)",
            True,
        ),
        ("fpu", "AMD EPYC", False),
    ],
)
def test_a_processor_is_named_with_its_instructions(
    flags: str, said: str, *, bfloat16: bool, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n\n")
    assert cpu_model(cpuinfo) == said
    assert has_bfloat16(cpuinfo) == bfloat16
