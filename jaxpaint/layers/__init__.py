"""Layers that more than one method uses, one per file, as small linen modules."""
