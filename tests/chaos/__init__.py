"""The kill matrix: `python -m tests.chaos`, or `make chaos`. What is in which file:

    boundary.py     names of the journal's boundaries, and how some of them are drawn by a seed
    runner.py       `gpurunbook ...` in one process, which kills itself or another at a boundary
    keeper.py       the process from which all lives of a lane come, and to which its orphans fall
    lane.py         a checkout of its own with one run in it, and the stub of the model's program
    audit.py        the API server's own list of what was written
    state.py        the cluster's objects, without what differs between any two clusters
    invariants.py   pure: what must hold afterwards
    matrix.py       undisturbed runs, chains of kills, pairs of boundary and victim

The product has no hook for any of this: what is wrapped is wrapped in the runner's own process.
"""
