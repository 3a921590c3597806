"""Looking at a data set: its statistics, pictures of its masks, and a page with both.

    write_report(workspace, release, Path("report.html"))
    write_overlays(workspace, release, Path("overlays"), max_images=20)

The names are imported from their modules, so that a command loads only what it uses.
"""
