"""What the documentation site has beyond the pages of docs/: generated pages, rewritten links."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
