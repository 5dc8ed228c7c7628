"""Drills about the model's image: it cannot be pulled, does not fit, or lacks a program."""

from __future__ import annotations

from gpurunbook.drills.drill import Drill, Making, Mend

ABSENT, MINIMAL = "irbull/dolly:0.3", "irbull/dolly:0.2-minimal"
GOOD = "irbull/dolly:0.2"
ROLLOUT = "kubectl rollout status deployment/dolly-v2-deployment --timeout=60s"


def mend(image: str) -> tuple[str, ...]:
    return (f"kubectl set image deployment/dolly-v2-deployment dolly={image}", ROLLOUT)


DRILLS = (
    Drill(
        "image-pull-back-off",
        told="The model was updated this morning. Its pod has been starting since.",
        teaches="pulling is the kubelet's work: what it waits between two tries, and where the registry's answer stands",
        minutes=5,
        made="in the Deployment: its image has a tag that the registry does not know",
        making=Making(holds=True, image=ABSENT, world={"images": {ABSENT: {
            "workdir": "/", "pull_error": f"manifest for {ABSENT} not found: manifest unknown"}}}),
        hints=("kubectl get pods says a word for it. Which event explains the word? kubectl describe pod -l app=dolly-v2",
               "Compare the image in the Deployment with the one in manifests/model/deployment.yaml."),
        mends=(Mend("Name an image that is there.", mend(GOOD)),
               Mend("The same with notebook 06.",
                    (f"gpurunbook run --run-id {{run}} --from model --until model -p image={GOOD}",)))),
    Drill(
        "image-too-big",
        told="The GPU nodes were made anew with the provider's default disk. The model's pod does not start.",
        teaches="an image needs its size on the disk, and its unpacked layers besides: about 2.5 times what the registry says",
        minutes=10,
        made="on the GPU node: a disk of 20 GiB for an image of 10.8 GB",
        making=Making(holds=True, world={"disk_gib": 20}),
        hints=("The same word as for a wrong name, and another reason: read the event to its end.",
               "How large is the node's disk, and how large the image? kubectl describe node {node}: ephemeral-storage"),
        mends=(Mend("A smaller image; or larger disks: volumeSize in cluster.yaml, and the node group made anew.",
                    mend("irbull/dolly:0.2-slim")),)),
    Drill(
        "no-tar",
        told="The new image is a third of the size, and everything starts. Copying the program into the pod fails.",
        teaches="kubectl cp is tar at both ends; how to copy without it",
        minutes=8,
        made="in the image: it has no tar",
        making=Making(image=MINIMAL, world={"images": {MINIMAL: {
            "workdir": "/home/bentoml/bento", "model": "/opt/model", "gigabytes": 3.4, "lacks": ["tar"],
            "environment": {"HOME": "/home/bentoml", "MODEL": "/opt/model", "HF_HUB_OFFLINE": "1",
                            "HF_HUB_DISABLE_PROGRESS_BARS": "1"}}}}),
        hints=("Copy any file by hand with kubectl cp, and read what comes back.",
               "Which program does kubectl cp start in the pod? kubectl exec deploy/dolly-v2-deployment -- tar --version"),
        mends=(Mend("Put tar into the image, or take one that has it. (07 goes on without it: it sends the file over exec.)",
                    mend(GOOD)),)),
)
