"""The client's subcommands; `reward_client.cli` runs them."""
