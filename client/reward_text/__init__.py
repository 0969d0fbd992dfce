"""From conversations to the token ids that the model takes: formats, tokens, truncation, padding.

Needs numpy and `tokenizers`, but not gRPC: exporter and trainer use it, too.
"""

from reward_text.formats import FORMATS, Conversation, Format
from reward_text.tokens import Encoded, Ids, Tokenizer, Truncation, check_texts, pad_rows
from reward_text.usage import Calibration, Context, Usage, context_of, format_named, is_chat

__all__ = [
    "FORMATS",
    "Calibration",
    "Context",
    "Conversation",
    "Encoded",
    "Format",
    "Ids",
    "Tokenizer",
    "Truncation",
    "Usage",
    "check_texts",
    "context_of",
    "format_named",
    "is_chat",
    "pad_rows",
]
