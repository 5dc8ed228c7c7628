"""The ladder of GPU readiness: which rung holds each GPU node, why, and what to do. What is in which file:

    the words          rungs.py (rungs, steps, findings), causes.py (what can hold a rung, and why)
    reading            kinds.py (what is read), reading.py (HTTP), trim.py (what is kept), cluster.py (lists and watches)
    what was read      snapshot.py (the objects), objects.py (what one says of itself), view.py (questions put to all of them)
    the rules, pure    machine.py (the node), stack.py (operator to allocatable), plugins.py (one device plug-in),
                       workload.py (smoke pod, model's pod), trouble.py (what ails a pod), diagnose.py (all, bottom up)
    asked besides      probe.py (exec in the model's pod)
    for those who ask  look.py (once, or followed), waiting.py (05's wait and checks), screen.py (in place), smoke.py (its pods)

Data flows one way: reading, snapshot, rules, ladder. The same on every target; nothing here writes to a cluster.
"""
