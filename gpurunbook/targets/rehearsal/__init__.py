"""A Kubernetes cluster on one machine whose pods compute. What is in which file:

    the cluster         cluster.py (the Target), nodes.py, instance_types.py
    the pod host        __main__.py (its process), pod_host.py (the kubelet API), api.py, pki.py, registration.py
      runs pods         pods.py, container.py, spec.py, pod_status.py, probes.py, images.py
      in a jail         jail.py, mounts.py, rootfs.py, process.py
      and is talked to  exec.py, logs.py
    the GPU operator    gpu_operator.py (watches, writes), gpu_plan.py, gpu_operands.py, gpu_labels.py (pure)
    the model           weights.py

kwokctl starts etcd, the API server, the scheduler, the controllers and KWOK. The API server calls the pod host for
exec and logs; the pod host watches the API server for pods whose image it runs; KWOK keeps all other pods.
"""
