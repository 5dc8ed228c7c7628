"""What can hold a rung, by name: why it happens, and the next command. The same names on every target, and in the drills."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A known trouble.

    Attributes:
        rung: where it shows, in gpurunbook.readiness.rungs.
        title: it in a few words.
        why: what happened, in one or two sentences, with the source of the knowledge.
        next: what to type, commands joined by "; ", under the run's `export` line; {node}, {namespace}, {pod}, {name} and
            {run} where they are known.
        advice: what no command can say: what to look for, and what else helps.
    """

    name: str
    rung: str
    title: str
    why: str
    next: str
    advice: str = ""


GPU_OPERATOR = "gpurunbook run --run-id {run} --from gpu_operator --until gpu_operator"
_ALL = (
    Cause("wrong-kubeconfig", "joined", "the kubeconfig leads elsewhere",
          "The API server behind the kubeconfig does not answer, does not prove who it is, or is not the one this run began "
          "with: server, CA or the UID of kube-system differ from what the journal recorded at first contact.",
          "kubectl config view --minify; gpurunbook status",
          "Compare server and CA with the run's journal.jsonl (kind identity), and restore the run's kubeconfig."),
    Cause("signed-out", "joined", "the API server does not know who we are",
          "It answers 401, or takes us for nobody (system:anonymous): on EKS nearly always a sign-in at AWS that has expired, "
          "or a profile other than the cluster's.",
          "aws sts get-caller-identity; kubectl auth whoami",
          "Sign in again (aws sso login), in the shell or with the profile that the cluster was made with."),
    Cause("api-throttled", "joined", "the API server throttles us",
          "API Priority and Fairness answered 429 until our patience ended: some client keeps the priority level full, or "
          "the flow schema sends us to one with too few seats (kubernetes.io, Flow control).",
          "kubectl get --raw /debug/api_priority_and_fairness/dump_priority_levels; kubectl get flowschemas"),
    Cause("node-missing", "joined", "a node has not joined",
          "There are fewer GPU nodes than cluster.yaml's least (minSize). On AWS: no capacity, a quota, or an instance whose "
          "bootstrap failed before its kubelet could register.",
          "kubectl get nodes; gpurunbook status"),
    Cause("node-not-ready", "ready", "the node is not Ready",
          "The kubelet says that something is missing, or says nothing any more; its condition has the message.",
          "kubectl describe node {node}"),
    Cause("node-flapping", "ready", "the node comes and goes",
          "The node was lost at least twice in ten minutes: the kubelet loses the API server again and again, from lack of "
          "memory or CPU, or a bad network. Whatever it is now, pods are evicted and come back.",
          "kubectl get events -A --field-selector involvedObject.name={node} --sort-by=.lastTimestamp; "
          "kubectl describe node {node}",
          "A kubelet that goes on like this cannot be mended from here: replace the node (kubectl drain, kubectl delete node, "
          "and end its instance)."),
    Cause("pdb-blocks-drain", "ready", "a disruption budget blocks the drain",
          "The node is cordoned, and a PodDisruptionBudget that allows no disruption selects a pod on it: a drain, by "
          "whomever, is refused its eviction for ever (eksctl#5855).",
          "kubectl get pdb -n {namespace} {name} -o yaml; kubectl describe node {node}",
          "If nobody drains the node, kubectl uncordon gives it back."),
    Cause("taint-controller-alive", "initialized", "the controller is alive, the taint is stuck",
          "A cloud controller renews its lease and yet has not taken its taint from the node within the usual time "
          "(amazon-eks-ami#1446). Nothing schedules on the node while the taint is there.",
          "kubectl taint nodes {node} node.cloudprovider.kubernetes.io/uninitialized-"),
    Cause("taint-no-controller", "initialized", "no controller takes the taint away",
          "The taint waits for a cloud controller, and none is at work: there is no lease that is renewed. Taking the taint "
          "away lets pods in; what else a controller does, such as load balancers, stays undone (k0rdent/kcm#290).",
          "kubectl taint nodes {node} node.cloudprovider.kubernetes.io/uninitialized-"),
    Cause("no-pci-label", "pci-label", "feature discovery sees no GPU",
          "Node Feature Discovery labelled the node, and no spelling of the GPU's label is among the labels "
          "(gpu-operator#78, #114): its settings leave the device class out, or the machine has no GPU. The operator passes "
          "the node by.",
          "kubectl label node {node} feature.node.kubernetes.io/pci-10de.present=true"),
    Cause("release-pending", "release", "helm was interrupted",
          "The newest revision of the release is pending, and no helm of this run is at work: one was killed and its lock "
          "stays, or somebody else's still runs. Every other upgrade ends in \"another operation is in progress\".",
          f"helm history {{name}} -n {{namespace}}; {GPU_OPERATOR}",
          "05 clears what this run's own helm left. For anybody else's, ask first: a helm that waits may take 15 minutes."),
    Cause("release-failed", "release", "the release failed",
          "Helm recorded that the newest revision failed; what it had made until then is still there.",
          f"helm status {{name}} -n {{namespace}}; {GPU_OPERATOR}"),
    Cause("driver-crash-loop", "driver", "the driver's container crashes",
          "On Ubuntu the operator builds the driver on the node; it ends again and again, most often since there are no "
          "headers for the node's kernel (gpu-operator#1251, #526). The log's last line says which.",
          "kubectl logs -n {namespace} {pod} --all-containers --previous --tail=40"),
    Cause("toolkit-missing", "toolkit", "no container toolkit",
          "The ClusterPolicy has the toolkit off, and the node's Ubuntu image does not bring one: containerd knows no runtime "
          "nvidia, and no pod that asks for it starts. Off is right for images that bring it, as AL2023's for NVIDIA does.",
          "kubectl patch clusterpolicy {name} --type=merge -p '{{\"spec\":{{\"toolkit\":{{\"enabled\":true}}}}}}'"),
    Cause("two-device-plugins", "device-plugin", "two device plug-ins on one node",
          "Two device plug-ins, such as the operator's and eksctl's, register nvidia.com/gpu for the same GPUs "
          "(eksctl#4771): a GPU can be given away twice, or vanish when one of them restarts.",
          "kubectl get daemonset -n {namespace} {name} -o yaml",
          "One of them has to go, on a cluster of others by agreement. Where the operator is at work, keep the operator's."),
    Cause("plugin-on-cpu-nodes", "device-plugin", "the device plug-in crashes on CPU nodes",
          "A device plug-in without a node selector runs on nodes without a GPU too, and ends there again and again "
          "(eksctl#8858, where it took the CPU nodes down).",
          "kubectl get daemonset -n {namespace} {name} -o yaml",
          "Keep it to the GPU nodes. Delete it only where another plug-in serves all of them."),
    Cause("gpu-not-allocatable", "allocatable", "the GPU counts as broken",
          "The kubelet knows the GPU (capacity) and offers none (allocatable): the device plug-in reports it as unhealthy, as "
          "after an XID error in the driver.",
          "kubectl logs -n {namespace} {pod} --tail=40; kubectl delete pod -n {namespace} {pod}",
          "A new pod of the plug-in asks the driver again. A GPU that stays ill wants a reboot or another instance."),
    Cause("cuda-broken", "smoke", "CUDA does not work",
          "All pods of the operator are Ready, its validator too, and a program that uses the GPU fails (gpu-operator#2685): "
          "driver and library do not fit, or the driver is in a bad state.",
          "kubectl logs -n {namespace} {pod}",
          "A driver of the operator's is made anew by deleting its pod; where the image brings the driver, reboot the node or "
          "replace it. Then run 05 again."),
    Cause("gpu-taken", "scheduled", "another pod holds the GPU",
          "The scheduler finds no free GPU: a pod that is not the model's holds it. A GPU belongs to one pod until that ends.",
          "kubectl get pod -n {namespace} {pod} -o yaml", "Ask its owner; if nobody needs it, delete what made it."),
    Cause("pod-unschedulable", "scheduled", "no node suits the pod",
          "The scheduler says what each node lacks: CPU, memory, a label that the pod selects by, or a toleration.",
          "kubectl describe pod -n {namespace} {pod}"),
    Cause("image-pull-back-off", "pulled", "the image cannot be pulled",
          "The registry does not know the image or refuses us, or cannot be reached; the kubelet tries again, each time after "
          "a longer pause.",
          "kubectl describe pod -n {namespace} {pod}", "Mend the image's name, or the registry's rights."),
    Cause("image-too-big", "pulled", "the image does not fit on the disk",
          "The node's disk is full while the image is unpacked. An image needs its compressed size and, unpacked, about twice "
          "that again.",
          "kubectl describe node {node}",
          "Look for ephemeral-storage. Raise volumeSize in cluster.yaml and make the nodes anew, or use a smaller image."),
    Cause("out-of-memory", "running", "the container ran out of memory",
          "The kernel killed the container at its memory limit (OOMKilled, exit code 137): a model's weights pass through RAM "
          "on their way to the GPU.",
          "kubectl describe pod -n {namespace} {pod}",
          "Raise the container's resources.limits.memory where its pod comes from: the model's is in "
          "manifests/model/deployment.yaml."),
    Cause("no-tar", "exec", "the image has no tar",
          "exec answers, and tar is not in the image: kubectl cp needs it there (kubernetes#58512).",
          "kubectl exec -n {namespace} {pod} -- tar --version; gpurunbook run --run-id {run} --from next_token",
          "Notebook 07 copies without tar."),
    Cause("exec-stream-cut", "exec", "exec's stream breaks off",
          "An exec ended without the last line that it should have printed, be its exit code 0 or not: something between us "
          "and the node cuts streams, and kubectl took that for the end (kubernetes#73056, #126778).",
          "kubectl exec -n {namespace} {pod} -- sh -c 'echo begin; sleep 5; echo end'",
          "If the end does not come, make the pod anew: delete it. Else look at proxies and idle time-outs on the way."),
    Cause("unknown", "", "of no known cause",
          "It takes longer than it ever should, or fails in a way that we have no name for. The evidence is all we know.",
          "kubectl describe node {node}; kubectl get events -A --sort-by=.lastTimestamp"),
)
CAUSES = {cause.name: cause for cause in _ALL}
