"""A cluster on AWS, made by eksctl. What is in which file:

    the target                 target.py (the Target), account.py (the only place that asks AWS), tags.py
    before                     preflight.py and its rules: limits.py, instance_types.py, versions.py, amis.py,
                               permissions.py, registry.py
    what it costs              agreement.py (what a person agreed to), prices.py, bill.py
    making it, and resuming    facts.py (what is there), resume.py (what is missing), derived.py (cluster.yaml with tags)
    while it runs, and after   stacks.py (CloudFormation's events), failures.py (what went wrong)
    leaving nothing            ownership.py (whose is it?), inventory.py, leftovers.py (what is left), sweep.py (commands),
                               aws.py (the program that runs them), reap.py (what has outlived its time)

Reading goes through Account, writing through eksctl and Commands. Rules are pure functions of what was read.
"""
