"""An extension of Griffe: `Example:` in a docstring is a section, as `Examples:` is."""

import re
from typing import Any

import griffe

TITLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Shows `Example:` sections as Python: Griffe only knows the plural."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401  # Griffe's own
        """Change the title of one docstring's section."""
        if obj.docstring:
            obj.docstring.value = TITLE.sub(r"\1Examples:", obj.docstring.value)
