"""The data set: images, masks, runs and releases in one workspace.

    with Workspace.open(Path("maskwheel-data")) as workspace:
        found = ingest(workspace, expand_inputs(["photos"]), limits, now)
        for run in plan_runs(workspace, found.image_ids, recipe, 64, now):
            for shard in pending_shards(workspace.store, run):
                write_shard(workspace.store, shard, results, run.provenance)
            release = commit_run(workspace, run)

The names are imported from their modules, so that a worker loads only what it uses.
"""
