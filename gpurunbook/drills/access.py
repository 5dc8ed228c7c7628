"""Drills about the way to the cluster: a kubeconfig of another one, and an API server that turns us away."""

from __future__ import annotations

from gpurunbook.drills import acts
from gpurunbook.drills.drill import Drill, Making, Mend
from gpurunbook.drills.objects import account, deployment, namespace, one_at_a_time

DRILLS = (
    Drill(
        "wrong-kubeconfig",
        told="Since this morning nothing answers, for one colleague after the other. The cluster itself is said to be fine.",
        teaches="what is in a kubeconfig (server, CA, user), which of the three fails how, and where to get a good one",
        minutes=10,
        made="in the run's kubeconfig: it has the CA of another cluster",
        making=Making(acts=(acts.another_ca,)),
        hints=("Read the error to its end: is the server not reached, not trusted, or are you not let in?",
               "openssl s_client shows who signed the server's certificate; kubectl config view whom this file trusts. "
               "Where did the file come from?"),
        mends=(Mend("Get the file again where it came from (on AWS: aws eks update-kubeconfig).",
                    ("kwokctl get kubeconfig --name {run} > {folder}/kubeconfig.new",
                     "mv {folder}/kubeconfig.new {folder}/kubeconfig")),
               Mend("Or put the right CA back.",
                    ("kubectl config set-cluster kwok-{run} "
                     "--certificate-authority={folder}/rehearsal/clusters/{run}/pki/ca.crt",)))),
    Drill(
        "api-throttled",
        told="kubectl has become slow, and every other list ends in an error. Single objects come at once.",
        teaches="API priority and fairness: who shares a queue with whom, and which headers of a 429 name it",
        minutes=20,
        made="in a FlowSchema and a priority level that all accounts of the namespace platform share, a busy dashboard "
             "among them",
        making=Making(objects={"model": (
            namespace("platform"), *account("runbook", "platform"), *account("dashboard", "platform"),
            deployment("dashboard", "platform", "platform/dashboard:2.3", labels={"app": "dashboard"}, account="dashboard"),
            *one_at_a_time("platform-readers", "platform", ("nodes", "pods")))},
            acts=(acts.dashboard, acts.token)),
        hints=("kubectl get pods -v=7: which status, and which headers does the answer carry?",
               "The headers hold UIDs. Of what? kubectl get flowschemas,prioritylevelconfigurations -o yaml"),
        mends=(Mend("Let the accounts go where service accounts go otherwise.",
                    ("kubectl delete flowschema platform-readers",)),
               Mend("Or end the noise: the dashboard lists all pods without a pause.",
                    ("kubectl scale deployment dashboard -n platform --replicas=0", "sleep 4")))),
)
