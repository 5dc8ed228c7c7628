"""Faults to learn from: a rehearsal that is started broken, and a learner who finds out how. What is in which file:

    what a drill is     drill.py; the catalogue and which seed gives which: catalogue.py
    the drills          nodes.py, operator.py, image.py, pod.py, access.py (data)
    how they are made   start.py (the walk), acts.py (what no object can say), objects.py, dashboard.py (a noisy client)
    how they end        verdict.py (mended or not, from the ladder), record.py (which run is which drill)

Why a fault happens and what to do next is said once, in gpurunbook.readiness.causes.
"""
