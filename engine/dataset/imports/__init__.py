"""Imports: masks from elsewhere, as a run of the data set and a release of kind "import".

    report = import_masks(workspace, CocoSource("annotations.json", images="photos"),
                          ImportOptions(stage="manual"), limits=ImageLimits(), now=now)

`importing` drives; `coco` and `sa1b` read the formats (`protocol.ImportSource`). What cannot be
used is recorded with a reason, in ``runs/<run_id>/rejected.jsonl``, and stops nothing. The names
are imported from their modules.
"""
