"""The reward model as the reward function of RL trainers: docs/rl.md."""
