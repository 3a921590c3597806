"""What a run leaves in the Prefect UI for people: pages, tables, pictures, links, progress.

    from flows.artifacts.pages import show_page

Each module shows one thing. A Prefect server that cannot be reached is a warning in the log, never
the end of a run: what is shown here also stands in the workspace.
"""
