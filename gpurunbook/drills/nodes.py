"""Drills about the nodes: what a cloud controller leaves undone, a drain that hangs, a kubelet that comes and goes."""

from __future__ import annotations

from gpurunbook.drills import acts
from gpurunbook.drills.drill import Drill, Making, Mend
from gpurunbook.drills.objects import disruption_budget
from gpurunbook.stages.taint import UNINITIALIZED

UNTAINT = f"kubectl taint nodes {{node}} {UNINITIALIZED}:NoSchedule-"

DRILLS = (
    Drill(
        "taint-controller-alive",
        told="The operator's release is installed, and not one of its pods starts on the GPU node.",
        teaches="who takes which taint off a new node, and how to see that the one who should is at work but not done",
        minutes=10,
        made="on the GPU node (its taint), and in the Lease that the cloud controller renews",
        making=Making(until="gpu_operator", holds=True, taint=True, world={"controller": True}),
        hints=("What does the scheduler say of the node: kubectl describe node {node}, the lines Taints and Conditions.",
               "Who should have taken it off, and is that program alive? kubectl get leases -n kube-system"),
        mends=(Mend("Once the controller's log says why it stopped half-way, and its work is done (provider ID and zone are "
                    "there), take the taint off by hand.", (UNTAINT,)),)),
    Drill(
        "taint-no-controller",
        told="The GPU node has been Ready for minutes. Whatever tolerates nothing does not get onto it.",
        teaches="a taint is a message: before it is removed, look for who was to read it, and for what else they left undone",
        minutes=12,
        made="on the GPU node: its taint, and the provider ID and zone that nobody filled in",
        making=Making(until="gpu_operator", holds=True, taint=True, world={"unplaced": True}),
        hints=("Compare the GPU node with another one: kubectl get nodes -o yaml. What has the other one that this lacks?",
               "Provider ID and zone come from the cloud controller. Does one run? kubectl get leases -n kube-system"),
        mends=(Mend("With no cloud controller at all: do its work by hand, then take its taint off. (On AWS the first two "
                    "come from the instance: aws ec2 describe-instances.)",
                    ("kubectl label node {node} topology.kubernetes.io/zone=eu-central-1a",
                     """kubectl patch node {node} -p '{{"spec":{{"providerID":"aws:///eu-central-1a/i-0abc1234def567890"}}}}'""",
                     UNTAINT)),)),
    Drill(
        "pdb-blocks-drain",
        told="Somebody is replacing the GPU node. Their kubectl drain has been repeating itself for ten minutes.",
        teaches="what a drain does (cordon, then evict), who may refuse an eviction, and what a budget over one replica means",
        minutes=12,
        made="in a PodDisruptionBudget over the model's only pod, and on the node that the drain has cordoned",
        making=Making(objects={"model": (disruption_budget("dolly-v2", {"app": "dolly-v2"}, 1),)}, acts=(acts.drain,)),
        hints=("What does kubectl get nodes say of the GPU node besides Ready, and what would put a pod elsewhere?",
               "An eviction may be refused: kubectl get poddisruptionbudgets -A, the column ALLOWED DISRUPTIONS."),
        mends=(Mend("The budget asks for one of one, so it can never be met during a drain. Agree on the outage, take the "
                    "budget away, and give the node back.",
                    ("kubectl delete poddisruptionbudget dolly-v2", "kubectl uncordon {node}")),
               Mend("Call the drain off.", ("kubectl uncordon {node}",)))),
    Drill(
        "node-flapping",
        told="Pods on the GPU node are said to vanish now and then. Each time somebody looks, the node is Ready.",
        teaches="Ready is a moment, events are a history; what the control plane does when a kubelet falls silent",
        minutes=15,
        made="in the kubelet of the GPU node, which stops reporting now and then",
        making=Making(until="taint", holds=True, world={"flapping": True}),
        hints=("One look shows one moment. What does the cluster remember of the node? kubectl get events -A",
               "Count the NodeNotReady of one node: kubectl get events -A --field-selector involvedObject.name={node}. A node "
               "like that is not repaired: it is replaced."),
        mends=(Mend("Replace the node (on AWS: terminate the instance, its group starts another).",
                    ("kubectl delete node {node}", "until kubectl get node {node}; do sleep 1; done",
                     "kubectl wait node/{node} --for=condition=Ready --timeout=60s")),)),
)
