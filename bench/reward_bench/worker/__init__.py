"""Standalone: a rival's interpreter runs this folder, and can import nothing else from here."""
