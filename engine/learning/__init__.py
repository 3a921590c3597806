"""Turning masks into better models."""
