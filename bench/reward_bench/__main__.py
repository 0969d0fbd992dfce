"""Run benchmark suites, in turn; each writes a JSON file that says where and how it was measured.

    python -m reward_bench server overload --quick
    python -m reward_bench graph server overload peers --shape small --output bench/results

Every suite has a process of its own. `--quick` uses tiny random weights and short measurements: it
shows that the suites run, but its figures say little.
"""

import signal
import sys
import time

from reward_bench import options, runner
from reward_bench.suite import say


def main() -> None:
    """Run the suites asked for."""
    suites = runner.known_suites()
    parser = options.parser(suites, __doc__)
    given = parser.parse_args()
    if unused := list(options.unused(given, suites)):
        parser.error(f"no suite that was asked for takes {', '.join(unused)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and workers end with it
    given.output.mkdir(parents=True, exist_ok=True)
    by_name = {suite.name: suite for suite in suites}
    for name in given.suites:
        suite = by_name[name]
        setting = options.setting_of(suite, given)
        file = given.output / suite.file.format(shape=setting.shape)
        say(f"== {name}")
        start = time.perf_counter()
        runner.in_own_process(name, setting, options.own_of(suite, given), file)
        say(f"== {name}: {time.perf_counter() - start:.0f} s, {file}")


if __name__ == "__main__":
    main()
