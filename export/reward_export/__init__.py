"""Checkpoint to ONNX graph, checked against PyTorch, published for Triton."""
