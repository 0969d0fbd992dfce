"""From text to the token ids that the model takes: GPT-2's tokens, truncation, padding.

Needs numpy and `tokenizers`, and no gRPC: exporter and trainer use it as the client does.
"""

from reward_text.tokens import Encoded, Ids, Tokenizer, Truncation, check_texts, pad_rows

__all__ = ["Encoded", "Ids", "Tokenizer", "Truncation", "check_texts", "pad_rows"]
