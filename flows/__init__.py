"""Orchestration: Prefect flows over the engine, and the command line."""
