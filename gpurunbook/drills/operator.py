"""Drills about NVIDIA's operator: its release, and each thing that it brings to a node."""

from __future__ import annotations

from gpurunbook.drills import acts
from gpurunbook.drills.drill import Drill, Making, Mend
from gpurunbook.drills.objects import GROUP_LABEL, device_plugin

DRIVER = "nvidia/driver:595.91.07-ubuntu24.04"
"""What the stand-in chart's pinned values and the nodes' image make of the driver's name."""
MANAGER = "nvidia/cloud-native/k8s-driver-manager:v0.12.0"
"""The same pod's init container: a pod runs for real as a whole."""
OLDER_DRIVER = "580.173.02"
PLUGIN = "nvidia/k8s-device-plugin:v0.17.4"
"""eksctl's manifest, of another version than the operator's."""
NO_HEADERS = """echo 'Creating directory for the driver build'
echo 'Installing the headers of kernel 6.8.0-1030-aws'
echo 'E: Unable to locate package linux-headers-6.8.0-1030-aws' >&2
echo 'Could not resolve the headers of the running kernel: the driver is not built' >&2
exit 1"""
NO_NVML = """echo 'Starting the device plugin for nvidia.com/gpu'
echo 'Loading NVML: libnvidia-ml.so.1: cannot open shared object file: No such file or directory' >&2
echo 'No NVIDIA device is found on this node: the device plugin ends' >&2
exit 1"""
AGAIN = "gpurunbook run --run-id {run} --from gpu_operator --until gpu_operator -p chart=stand-in"
RELEASE = "helm upgrade gpu-operator {root}/manifests/rehearsal/gpu-operator -n gpu-operator --reuse-values"

DRILLS = (
    Drill(
        "no-pci-label",
        told="The release is deployed, and no driver pod ever appears on the GPU node.",
        teaches="the operator acts on nodes with a label, not on nodes with a GPU; and who writes that label",
        minutes=12,
        made="in Node Feature Discovery, which labels the GPU node and leaves out its GPU",
        making=Making(until="gpu_operator", holds=True, world={"no_pci_label": True}),
        hints=("Which DaemonSets has the operator made, and how many nodes does each want? kubectl get ds -n gpu-operator",
               "Compare the labels that feature discovery wrote with what the operator looks for: "
               "kubectl get node {node} --show-labels"),
        mends=(Mend("Set the label by hand; in life, then mend the configuration of Node Feature Discovery (deviceLabelFields, "
                    "deviceClassWhitelist).", ("kubectl label node {node} feature.node.kubernetes.io/pci-10de.present=true",)),)),
    Drill(
        "release-pending",
        told="The pipeline that installs the operator was restarted in the middle. Since then helm refuses each upgrade.",
        teaches="where Helm keeps its state, and why a helm that was killed locks its release",
        minutes=8,
        made="in the release's Secret: helm was killed (SIGKILL) before it could write that the release is deployed",
        making=Making(until="taint", acts=(acts.killed_helm,)),
        hints=("Try the upgrade yourself, and read what helm says. Then: helm list -A --all, or with Helm 4: helm list -A",
               "kubectl get secrets -n gpu-operator -l owner=helm --show-labels: what is the newest one's status?"),
        mends=(Mend("There is no good revision to go back to: uninstall, and install again.",
                    ("helm uninstall gpu-operator -n gpu-operator --wait --timeout 60s", AGAIN)),
               Mend("Notebook 05 finds the state and does the same.", (AGAIN,)))),
    Drill(
        "driver-crash-loop",
        told="Since the nodes were rebuilt from the newest image, no GPU is to be had. The release says that all is well.",
        teaches="the operator compiles the driver against the node's kernel; reading the log of the container that ended",
        minutes=15,
        made="in the driver's container, which finds no headers for the node's kernel",
        making=Making(until="gpu_operator", holds=True, world={
            "images": {DRIVER: {"workdir": "/", "command": ["sh", "-c", NO_HEADERS]},
                       MANAGER: {"workdir": "/", "command": ["sh", "-c", "echo 'No driver is loaded: nothing to unload'"]}}}),
        hints=("A release that is deployed has made its objects, no more. What has the operator made? "
               "kubectl get pods -n gpu-operator",
               "kubectl logs -n gpu-operator -l app=nvidia-driver-daemonset --previous: what is its last line?"),
        mends=(Mend("Take a driver version that fits the kernel (or nodes with an older kernel, or a precompiled driver). "
                    "The driver's DaemonSet replaces no pod by itself: delete it.",
                    (f"{RELEASE} --set driver.version={OLDER_DRIVER}",
                     "kubectl delete pods -n gpu-operator -l app=nvidia-driver-daemonset --wait")),)),
    Drill(
        "toolkit-missing",
        told="The driver is up. The operator's other pods on the GPU node have been in ContainerCreating ever since.",
        teaches="what stands between a driver and a container: the runtime class, and who configures containerd for it",
        minutes=15,
        made="in the release's values: toolkit.enabled is false on nodes whose image brings no toolkit",
        making=Making(until="gpu_operator", holds=True, values=("toolkit.enabled=false",)),
        hints=("kubectl describe one of the pods that wait: what do its events say?",
               "Who gives containerd that runtime? helm get values gpu-operator -n gpu-operator, and manifests/gpu-operator/"),
        mends=(Mend("Switch it on again: the values for this node image say so, and notebook 05 applies them.", (AGAIN,)),
               Mend("The same with helm.", (f"{RELEASE} --set toolkit.enabled=true",)))),
    Drill(
        "two-device-plugins",
        told="GPU pods work, mostly. The node's count of GPUs jumps, and now and then a pod is refused at the node.",
        teaches="a resource has one registrar on a node; what eksctl installs by itself, and its flag against it",
        minutes=10,
        made="in kube-system: eksctl's device plug-in runs beside the operator's",
        making=Making(objects={"model": (device_plugin(PLUGIN, {
            "key": "feature.node.kubernetes.io/pci-10de.present", "operator": "In", "values": ["true"]}),)}),
        hints=("Who reports nvidia.com/gpu on this node? List the pods on it, of all namespaces: "
               "kubectl get pods -A --field-selector spec.nodeName={node}",
               "kubectl get ds -A | grep device-plugin"),
        mends=(Mend("Keep the operator's, remove the other; next time: eksctl create cluster --install-nvidia-plugin=false.",
                    ("kubectl delete daemonset nvidia-device-plugin-daemonset -n kube-system --wait",)),)),
    Drill(
        "plugin-on-cpu-nodes",
        told="The GPU works. Monitoring reports restarting pods on nodes that have nothing to do with GPUs.",
        teaches="a DaemonSet runs wherever nothing keeps it away; reading a crash-loop on the node where it happens",
        minutes=8,
        made="in kube-system: eksctl's device plug-in, kept off the GPU nodes by somebody, and left on all others",
        making=Making(objects={"model": (device_plugin(PLUGIN, {
            "key": GROUP_LABEL, "operator": "NotIn", "values": ["gpu-workers"]}),)},
            world={"images": {PLUGIN: {"workdir": "/", "command": ["sh", "-c", NO_NVML]}}}),
        hints=("kubectl get pods -A -o wide: which ones restart, and on which nodes?",
               "What keeps that DaemonSet off a node, and is it the right thing? kubectl get ds -n kube-system -o yaml"),
        mends=(Mend("Nobody needs it where the operator brings its own.",
                    ("kubectl delete daemonset nvidia-device-plugin-daemonset -n kube-system --wait",)),)),
    Drill(
        "gpu-not-allocatable",
        told="The node shows a GPU. Every pod that asks for one stays Pending: Insufficient nvidia.com/gpu.",
        teaches="capacity is what is there, allocatable what may be given away; what a device plug-in does with a sick GPU",
        minutes=10,
        made="in the operator's device plug-in, which reports the node's GPU as unhealthy",
        making=Making(until="gpu_operator", holds=True, world={"unhealthy": True}),
        hints=("kubectl describe node {node}: compare Capacity and Allocatable.",
               "Who reports health? Look at the device plug-in's pod on the node, and what making it anew changes."),
        mends=(Mend("Make the plug-in's pod anew, so that it asks the driver again. (On AWS, first: nvidia-smi and the "
                    "kernel's log for XID errors; a GPU that is really sick wants another instance.)",
                    ("kubectl delete pods -n gpu-operator -l app=nvidia-device-plugin-daemonset --wait",)),)),
    Drill(
        "cuda-broken",
        told="ClusterPolicy ready, validator Ready, a GPU is allocatable, and the first program that uses it fails.",
        teaches="a green validator is not a working GPU: run your own program, and read its last line",
        minutes=15,
        made="in the driver on the GPU node: cuInit answers 999 (CUDA_ERROR_UNKNOWN)",
        making=Making(until="smoke", holds=True, world={"cuda_error": 999}),
        hints=("Everything that reports is green. What has been computed? Look for a pod that has Failed.",
               "kubectl logs of that pod: what did the CUDA driver answer? And who brings the driver?"),
        mends=(Mend("Restart the driver: delete its pod, which unloads and loads the kernel modules; then run the smoke pod "
                    "again. (On AWS a reboot or another instance, if that does not help.)",
                    ("kubectl delete pods -n gpu-operator -l app=nvidia-driver-daemonset --wait",
                     AGAIN)),)),
)
