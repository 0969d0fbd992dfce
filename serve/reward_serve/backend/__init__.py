"""A Triton backend named `onnxruntime`, written in Python; nothing in it is specific to GPT-2."""
