"""A cluster on AWS, made by eksctl. What is in which file:

    the target            target.py (the Target), account.py (the only place that asks AWS), tags.py
    01, before            preflight.py and its rules: taken.py (region, names in use), limits.py, instance_types.py,
                          versions.py, amis.py, registry.py, permissions.py; trial.py (the account check)
    what it costs         agreement.py (what a person agreed to), prices.py (look-up), bill.py (sum), made.py (what eksctl
                          makes of a file, as far as that costs)
    02, make and resume   facts.py (what is there), resume.py (what is missing), derived.py (cluster.yaml with tags)
      while it runs       stacks.py (CloudFormation's events), watching.py, settle.py (waits for a stack), failures.py
    09, leave nothing     ending.py (the plan, the proof), ownership.py (whose is it?), inventory.py and stack_members.py
                          (what is there), leftovers.py (what is left), sweep.py (commands), aws.py (the program that runs
                          them), reap.py (beyond its time)

Reading goes through Account, writing through eksctl and Commands. Rules are pure functions of what was read.
"""
