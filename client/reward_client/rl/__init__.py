"""The reward model as the reward of RL trainers; docs/rl.md."""
