"""The parts of synthetic scenes: textures, outlines, the canvas and what is painted on it."""
