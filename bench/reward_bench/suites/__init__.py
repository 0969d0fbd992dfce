"""One suite per module, each with a `SUITE`; `reward_bench.suite` says what that is."""
