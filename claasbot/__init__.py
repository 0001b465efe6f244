"""A chat bot that learns from the people it talks to. Imports nothing: each process takes its own part only."""

__version__ = "0.1.0"
