"""The plot at the top of the README: the time of one best-of-8 call, engine by engine.

Written as SVG by hand, because its colours follow the reader's light or dark scheme.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from reward_bench.report.cells import Report

NAMES = {2: "two", 4: "four", 8: "eight"}
WIDTH, LEFT, RIGHT = 720, 176, 84  # widths: the picture, its labels, the values after bars
BAR, STEP, HEAD, TOP, FOOT = 16, 22, 44, 34, 30
# workload -> what it is, for readers who have read nothing else
WORKLOADS = {
    "a": "A chat of 160 tokens with 8 replies of 32 to 64 tokens",
    "long": "A long chat with 8 replies, each cut to its own last 256 tokens: nothing is shared",
}
# label -> the engines that it covers; the fastest of them counts
ENGINES = {
    "PyTorch": ("torch-eager", "torch-sdpa"),
    "plain ONNX export": ("plain",),
    "vLLM, float32": ("vllm-float32", "vllm-float32-nocache"),
    "vLLM, bfloat16": ("vllm-bfloat16", "vllm-bfloat16-nocache"),
    "ours, float32": ("ours",),
    "ours, int8": ("ours-int8",),
}
STYLE = """\
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff } .other { fill: #a8b0b9 } .ours { fill: #0072b2 }
.title { font-size: 15px; font-weight: 600 } .head { font-weight: 600 } .faint { fill: #59636e }
.mine { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9198a1 }
  .paper { fill: #0d1117 } .other { fill: #59636e } .ours { fill: #56b4e9 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """An engine and its milliseconds."""

    label: str
    ms: float

    @property
    def is_ours(self) -> bool:
        """Whether it is drawn in colour."""
        return self.label.startswith("ours")


def bars(report: Report, workload: str) -> list[Bar]:
    """The engines that were measured, slowest first."""
    found = report["workloads"][workload]["engines"]
    measured = {
        label: [found[engine]["ms_min"] for engine in engines if engine in found]
        for label, engines in ENGINES.items()
    }
    made = [Bar(label, min(times)) for label, times in measured.items() if times]
    return sorted(made, key=lambda bar: bar.ms, reverse=True)


def svg(report: Report) -> str:
    """The picture as the text of an SVG file."""
    panels = {title: bars(report, name) for name, title in WORKLOADS.items()}
    longest = max(bar.ms for panel in panels.values() for bar in panel)
    cores = NAMES.get(report["threads"], str(report["threads"]))
    title = f"Milliseconds to find the best of 8 replies on {cores} CPU cores"
    lines, y = [_text(12, 24, title, "title")], TOP
    for name, panel in panels.items():
        lines += [_text(12, y + 26, name, "head"), *_panel(panel, y + HEAD - 8, longest)]
        y += HEAD + STEP * len(panel)
    engines = "each answer compared with the plain export's; lower is better"
    note = f"GPT-2 {report['shape']} on {report['cpu']}; {engines}"
    lines.append(_text(12, y + 18, note, "faint"))
    height = y + FOOT
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _panel(panel: Sequence[Bar], top: int, longest: float) -> Iterator[str]:
    for i, bar in enumerate(panel):
        y, width = top + STEP * i, (WIDTH - LEFT - RIGHT) * bar.ms / longest
        kind, weight = ("ours", "mine") if bar.is_ours else ("other", "")
        yield _text(LEFT - 10, y + 12, bar.label, weight, anchor="end")
        yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'
        yield _text(LEFT + width + 7, y + 12, f"{bar.ms:,.0f} ms", weight)


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
