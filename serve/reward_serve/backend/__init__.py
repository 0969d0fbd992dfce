"""A Triton backend named `onnxruntime`, written in Python; nothing in it knows GPT-2."""
