"""Subcommands of `gpt2-reward`; `reward_client.cli` says what a subcommand consists of."""
