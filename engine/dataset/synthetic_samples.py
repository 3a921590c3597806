"""Samples of synthetic scenes, for the share of a training that needs no photo.

>>> sample = scene_sample(SampleConfig(scene_probability=0.1), random)
"""

from __future__ import annotations

import numpy as np
import torch

from engine.dataset.sample_cutting import Sample, SampleConfig, finish_sample, vary_colour
from engine.dataset.scenes.drawing import draw_scene

_RECOLOURED = 0.5


def scene_sample(config: SampleConfig, random: np.random.Generator) -> Sample:
    """Draw scenes until one has a mask to ask for; half of them get the looks of photos too."""
    while True:
        scene = draw_scene(random, config.crop_px, config.crop_px)
        pixels = scene.image_HWC3
        if random.random() < _RECOLOURED:
            pixels = vary_colour(pixels, config, random)
        order = random.permutation(len(scene.masks_NHW))
        masks = torch.from_numpy(scene.masks_NHW[order])
        largest = config.max_area_ratio * config.crop_px**2
        masks = masks[masks.flatten(1).sum(1) <= largest]
        sample = finish_sample(torch.from_numpy(pixels), masks, [1] * len(masks), config)
        if sample is not None:
            return sample
