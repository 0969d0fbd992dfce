"""Logs: a line for each request, and never any text of a conversation."""

import json
import logging
import time
from typing import Literal


class Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, extra fields, and an error's traceback."""
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class Text(logging.Formatter):
    """Plain lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The usual line, followed by the extra fields."""
        told = getattr(record, "told", {})
        return " ".join(
            [super().format(record), *(f"{key}={value}" for key, value in told.items())]
        )


def set_up(form: Literal["text", "json"]) -> None:
    """Log to standard error in one form, messages of libraries included."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        Json() if form == "json" else Text("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each request's URL
