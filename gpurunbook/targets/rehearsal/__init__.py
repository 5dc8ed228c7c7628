"""A Kubernetes cluster on one machine whose pods compute. What is in which file:

    the cluster         cluster.py (the Target), kwok.py (its configuration), access.py (its users), nodes.py, instance_types.py
    what it imitates    world.py (pace and faults, one file in the run folder), pace.py, faults.py, flapping.py, cloud.py
    the pod host        __main__.py (its process), pod_host.py (the kubelet API), api.py, pki.py, registration.py, events.py
      runs pods         pods.py, pod.py, container.py, spec.py, pod_status.py, probes.py, memory.py
      from images       images.py (which compute), pulls.py
      in a jail         jail.py, seccomp.py, limits.py, mounts.py, rootfs.py, process.py
      and is talked to  exec.py, logs.py
    the GPU operator    gpu_operator.py (watches, writes), gpu_plan.py, gpu_operands.py, gpu_labels.py, gpu_health.py (pure),
                        sandbox.py (pods that find no runtime)
    the model           weights.py

kwokctl starts etcd, the API server, the scheduler, the controllers and KWOK. The API server calls the pod host for
exec and logs; the pod host watches the API server for pods whose image it runs; KWOK keeps all other pods.
"""
