"""Writes docs/benchmarks.md and its plots from the result files."""
