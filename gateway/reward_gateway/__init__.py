"""The reward model behind HTTP: reranking as others define it, and best of N for chat servers.

HTTP ──► guard ──► routes ──► one AsyncRewardClient ──► Triton
                      └────► an OpenAI-compatible generator (best of N)
"""
