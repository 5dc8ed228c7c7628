"""Drills about the model's pod: it gets no GPU, it dies while it loads, or it answers with half a sentence."""

from __future__ import annotations

from gpurunbook.drills import acts
from gpurunbook.drills.drill import Drill, Making, Mend
from gpurunbook.drills.image import ROLLOUT
from gpurunbook.drills.objects import deployment, namespace

TRAINING = deployment("training", "team-b", "team-b/training:1.4", labels={"app": "training"}, gpus=1, group="gpu-workers")

DRILLS = (
    Drill(
        "gpu-taken",
        told="Yesterday all of it ran. Today the model's pod is Pending, and nobody has changed anything.",
        teaches="GPUs are counted whole and handed out first come, first served; how to find who holds one",
        minutes=8,
        made="in the namespace team-b: a pod of another team asked for the only GPU first",
        making=Making(holds=True, objects={"smoke": (namespace("team-b"), TRAINING)}),
        hints=("The scheduler says what is short: kubectl describe pod -l app=dolly-v2. How many are there in all?",
               "kubectl describe node {node}: Non-terminated Pods, and Allocated resources. Which of them asks for a GPU?"),
        mends=(Mend("Talk to the other team; then the GPU goes to one of you. (Or another GPU node.)",
                    ("kubectl scale deployment training -n team-b --replicas=0",
                     "kubectl wait --for=delete pod -l app=training -n team-b --timeout=60s || true", ROLLOUT)),)),
    Drill(
        "out-of-memory",
        told="The pod is Running. Asking the model ends after some seconds, without an answer and without an error of Python's.",
        teaches="exit code 137 is SIGKILL; where the kernel's decision shows, and that the weights pass through RAM first",
        minutes=10,
        made="in the Deployment: a memory limit below what loading the model takes",
        making=Making(acts=(acts.starve, acts.ask_the_model)),
        hints=("Has anything restarted? kubectl get pods, then kubectl describe pod -l app=dolly-v2: Last State.",
               "What may the container use, and what does the model need? The Deployment's limits, against 06's manifest."),
        mends=(Mend("Give it back what loading needs, as the manifest says.",
                    ("kubectl set resources deployment dolly-v2-deployment -c dolly --limits=memory=12Gi,nvidia.com/gpu=1 "
                     "--requests=memory=8Gi", ROLLOUT)),
               Mend("The same with notebook 06.", ("gpurunbook run --run-id {run} --from model --until model",)))),
    Drill(
        "exec-stream-cut",
        told="Commands in the pod end well and print only a part. The same command prints more or less each time.",
        teaches="exit code 0 may mean that the connection went, not that the program ended: a last line of your own proves it",
        minutes=15,
        made="between the API server and the pod's kubelet, where exec streams break",
        making=Making(world={"cut_streams": True}),
        hints=("Run something whose end you know: kubectl exec deploy/dolly-v2-deployment -- sh -c 'seq 100000; echo END'",
               "Compare the exit code with the last line. Then: does a new pod behave the same?"),
        mends=(Mend("Make the pod anew. (On AWS: the node's network, its proxies, idle time-outs of load balancers.)",
                    ("kubectl delete pods -l app=dolly-v2 --wait", ROLLOUT)),)),
)
