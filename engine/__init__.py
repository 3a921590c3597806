"""The data engine without orchestration: data set, automatic stage, learning, quality."""

__all__: list[str] = []
