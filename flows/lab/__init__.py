"""The GPU lab: the stages as Prefect flows on one worker pool. Nothing outside this folder imports Prefect."""
