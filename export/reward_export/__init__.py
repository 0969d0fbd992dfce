"""Turns a checkpoint into an ONNX graph, checks it against PyTorch, and publishes it for Triton."""
