"""Names of the files that tell what a folder is, without the libraries that read them."""

PLAN = "plan.parquet"
"""In a trajectory store."""
NOTE = "export.json"
"""In an export."""
LOCATION = "location.json"
"""In a trajectories artefact: where its store is."""
