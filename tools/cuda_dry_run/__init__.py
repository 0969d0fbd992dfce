"""What ONNX Runtime's CUDA provider does with a graph, found out without a GPU.

The real `onnxruntime-gpu` runs over stand-ins for NVIDIA's libraries: the provider registers its
kernels, partitions the graph, inserts copies and chooses implementations as on a GPU, for the
compute capability that the stand-in claims; launches and products are logged and compute nothing.
What this cannot show is in `report.LIMITS`.
"""
