"""Benchmarks of the graph, the server and the client: `python -m reward_bench SUITE...`.

Part of a checkout, but not of the wheel. A suite is a module of `reward_bench.suites`; what suites
share is next to that folder. Suites import shared code; nothing imports a suite.
"""
