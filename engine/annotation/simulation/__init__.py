"""Simulated people at the annotation service: `simulation.simulate` lets them work.

They see what people drew (`truth`), click like people (`annotator`, `mask_making`, `reviewer`),
take time like people (`timing`), and sit at a stand-in for the page (`page`), which speaks the real
HTTP API.
Import from the modules themselves.
"""
