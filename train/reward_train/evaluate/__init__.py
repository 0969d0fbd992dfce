"""How well a served model chooses: labelled groups against running servers."""
