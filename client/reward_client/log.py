"""The package's logger. It never gets chat text, and never a header's value."""

import logging

LOG = logging.getLogger("reward_client")
