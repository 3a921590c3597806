"""Exports: a release in the files that other tools read.

    with Workspace.open("maskwheel-data", create=False) as workspace:
        report = export_release(workspace, release, ExportOptions(format="coco"), "exports/r3")

`exporting` drives; a module per format says what an image becomes (`protocol.ExportFormat`);
`source` streams the release, `target` writes so that a killed export never looks complete. The
names are imported from their modules.
"""
