"""Seeing what happens: logs."""
