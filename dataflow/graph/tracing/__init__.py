"""Tracing: a body runs once, on placeholders, and what it does with them becomes a graph."""
