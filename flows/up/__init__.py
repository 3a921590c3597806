"""`maskwheel up`: the Prefect server, workers and the annotation service as one thing that runs.

A small supervisor starts them as processes of their own, keeps them alive, says where they are, and
ends them together. What they do is theirs; what they know is in the workspace and the databases, so
that stopping, or a power cut, costs nothing but time.
"""
