"""The package's logger. It never gets chat text or the value of a header."""

import logging

LOG = logging.getLogger("reward_client")
