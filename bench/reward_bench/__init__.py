"""Benchmarks of the graph, the server and the client: `python -m reward_bench SUITE...`.

Part of a checkout, and of no wheel. A suite is a module of `reward_bench.suites`; what suites share
is beside that folder. Suites ask shared code, shared code asks no suite, and no suite asks another.
"""
