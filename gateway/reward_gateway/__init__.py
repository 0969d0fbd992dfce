"""The reward model over HTTP: reranking in others' protocols, and best of N for chat servers.

HTTP ──► guard ──► routes ──► one AsyncRewardClient ──► Triton
                      └────► an OpenAI-compatible generator (best of N)
"""
