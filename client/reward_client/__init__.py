"""Client for a GPT-2 reward model served by NVIDIA Triton."""
