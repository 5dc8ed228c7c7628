"""The EC2 instance types a rehearsal can imitate: CPUs, memory, GPUs and how many pods fit.

Facts from AWS's instance type pages; what EKS keeps for itself from amazon-eks-ami's kubelet configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpurunbook.errors import ConfigError

GIB_PER_CPU = {"c5": 2, "c6i": 2, "c7i": 2, "m5": 4, "m6i": 4, "m7i": 4, "r5": 8, "r6i": 8, "r7i": 8,
               "g4dn": 4, "g5": 4, "g6": 4, "g6e": 8}
GPU_PRODUCT = {"g4dn": ("Tesla-T4", 15360), "g5": ("NVIDIA-A10G", 23028), "g6": ("NVIDIA-L4", 23034),
               "g6e": ("NVIDIA-L40S", 46068), "p3": ("Tesla-V100-SXM2-16GB", 16384),
               "p4d": ("NVIDIA-A100-SXM4-40GB", 40960), "p5": ("NVIDIA-H100-80GB-HBM3", 81559)}
"""Product as GPU feature discovery names it, and memory in MiB."""
GPUS_BY_SIZE = {"g4dn": {"12xlarge": 4}, "g5": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
                "g6": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}, "g6e": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}}
LARGE_GPU = {"p3.2xlarge": (8, 61, 1), "p3.8xlarge": (32, 244, 4), "p3.16xlarge": (64, 488, 8),
             "p4d.24xlarge": (96, 1152, 8), "p5.48xlarge": (192, 2048, 8)}
MAX_PODS = {"large": 29, "xlarge": 58, "2xlarge": 58, "4xlarge": 234}
MAX_PODS_EXCEPT = {"g4dn.xlarge": 29, "g4dn.2xlarge": 29, "g4dn.4xlarge": 29}


@dataclass(frozen=True)
class InstanceType:
    """`memory_mib` in MiB; `gpu_memory_mib` for each GPU."""

    name: str
    cpus: int
    memory_mib: int
    gpus: int
    gpu_product: str
    gpu_memory_mib: int
    max_pods: int

    @property
    def allocatable_cpu_m(self) -> int:
        """Millicores: 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest are kept."""
        kept = sum((60, 10, 5, 5)[i] if i < 4 else 2.5 for i in range(self.cpus))
        return int(self.cpus * 1000 - kept)

    @property
    def allocatable_memory_mib(self) -> int:
        """MiB: 255 + 11 for each pod are kept for the kubelet, 100 against eviction."""
        return self.memory_mib - (255 + 11 * self.max_pods) - 100


def lookup(name: str) -> InstanceType:
    """The type of that name. Raises ConfigError for one that the rehearsal does not know."""
    family, _, size = name.partition(".")
    if name in LARGE_GPU:
        cpus, gib, gpus = LARGE_GPU[name]
    elif family in GIB_PER_CPU and (cpus := _cpus(size)):
        gib = cpus * GIB_PER_CPU[family]
        gpus = GPUS_BY_SIZE[family].get(size, 1) if family in GPUS_BY_SIZE and size != "large" else 0
    else:
        raise ConfigError(f"the rehearsal does not know the instance type {name!r}", where="cluster.yaml, instanceType",
                          next=f"use a type of {', '.join(sorted(GIB_PER_CPU))} or one of {', '.join(LARGE_GPU)}; "
                               f"other types are fine on eks")
    product, memory = GPU_PRODUCT.get(family, ("", 0)) if gpus else ("", 0)
    return InstanceType(name, cpus, gib * 1024, gpus, product, memory,
                        MAX_PODS_EXCEPT.get(name, MAX_PODS.get(size, 234)))


def _cpus(size: str) -> int:
    if size == "large":
        return 2
    count = size.removesuffix("xlarge")
    return 4 if size == "xlarge" else 4 * int(count) if size.endswith("xlarge") and count.isdigit() else 0
