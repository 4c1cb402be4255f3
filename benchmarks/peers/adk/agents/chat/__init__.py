"""The app `chat` of ADK's API server."""

from . import agent

__all__ = ["agent"]
