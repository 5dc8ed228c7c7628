"""What moto lacks and our code, or eksctl, asks: each answer in the account's own words, over HTTP.

Version dates are ../shared/facts/field.md F1. Quota codes and the shape of a price are from AWS's documentation. Image
ids, image names and prices are invented; the prices are near what AWS asked in Frankfurt in 2026.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.aws.wire import Request

REGION = "eu-central-1"
CANONICAL, AMAZON = "099720109477", "602401143452"
VERSIONS = {  # version: (end of standard support, end of extended support)
    "1.36": ("2027-08-02", "2028-08-02"), "1.35": ("2027-03-27", "2028-03-27"), "1.34": ("2026-12-02", "2027-12-02"),
    "1.33": ("2026-07-29", "2027-07-29"), "1.32": ("2026-03-23", "2027-03-23"), "1.31": ("2025-11-26", "2026-11-26")}
TODAY = dt.date(2026, 11, 22)
QUOTAS = {  # (service, code): (name, value)
    ("ec2", "L-DB2E81BA"): ("Running On-Demand G and VT instances", 8.0),
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 64.0),
    ("ec2", "L-417A185B"): ("Running On-Demand P instances", 0.0),
    ("ec2", "L-0263D0A3"): ("EC2-VPC Elastic IPs", 5.0),
    ("vpc", "L-F678F1CE"): ("VPCs per Region", 5.0),
    ("vpc", "L-FE5A380F"): ("NAT gateways per Availability Zone", 5.0),
    ("vpc", "L-A4707A72"): ("Internet gateways per Region", 5.0),
    ("eks", "L-1194D53C"): ("Clusters", 100.0)}
PRICES: list[tuple[str, str, str, str, str, dict[str, str]]] = [  # service, family, usage type, unit, USD, attributes
    ("AmazonEKS", "Compute", "EUC1-AmazonEKS-Hours:perCluster", "Hours", "0.1000000000", {"operation": "CreateOperation"}),
    ("AmazonEKS", "Compute", "EUC1-AmazonEKS-Hours:extendedSupport", "Hours", "0.5000000000", {"operation": "ExtendedSupport"}),
    *[("AmazonEC2", "Compute Instance", f"EUC1-BoxUsage:{name}", "Hrs", usd, {
        "instanceType": name, "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
        "licenseModel": "No License required", "operation": "RunInstances", "marketoption": "OnDemand"})
      for name, usd in (("g4dn.xlarge", "0.6580000000"), ("g5.xlarge", "1.2580000000"), ("m5.xlarge", "0.2300000000"),
                        ("m5.large", "0.1150000000"))],
    *[("AmazonEC2", "Storage", f"EUC1-EBS:VolumeUsage.{name}", "GB-Mo", usd, {
        "volumeApiName": name, "volumeType": "General Purpose", "operation": ""})
      for name, usd in (("gp3", "0.0952000000"), ("gp2", "0.1190000000"))],
    ("AmazonEC2", "NAT Gateway", "EUC1-NatGateway-Hours", "Hrs", "0.0520000000",
     {"group": "NGW:NatGateway", "operation": "NatGateway"}),
    ("AmazonEC2", "NAT Gateway", "EUC1-NatGateway-Bytes", "GB", "0.0520000000",
     {"group": "NGW:NatGateway", "operation": "NatGateway"}),
    ("AmazonVPC", "VpcPublicIPv4", "EUC1-PublicIPv4:InUseAddress", "Hrs", "0.0050000000",
     {"group": "VPCPublicIPv4Address", "operation": "AllocateAddressVPC"}),
    ("AmazonVPC", "VpcPublicIPv4", "EUC1-PublicIPv4:IdleAddress", "Hrs", "0.0050000000",
     {"group": "VPCPublicIPv4Address", "operation": "AllocateAddressVPC"}),
    ("AWSELB", "Load Balancer", "EUC1-LoadBalancerUsage", "Hrs", "0.0300000000",
     {"group": "ELB:Balancing", "operation": "LoadBalancing"}),
    ("AWSELB", "Load Balancer-Network", "EUC1-LoadBalancerUsage", "Hrs", "0.0270000000",
     {"group": "ELB:Balancing", "operation": "LoadBalancing:Network"}),
    ("AWSELB", "Load Balancer-Application", "EUC1-LoadBalancerUsage", "Hrs", "0.0270000000",
     {"group": "ELB:Balancing", "operation": "LoadBalancing:Application"}),
]


def _images() -> dict[str, dict[str, str]]:
    """Every image by the SSM parameter that names it: id, name, owner."""
    found = {}
    for number, version in enumerate(VERSIONS):
        for index, (path, name, owner) in enumerate((
                ("canonical/ubuntu/eks/24.04/{v}/stable/current/amd64/hvm/ebs-gp3/ami-id",
                 "ubuntu-eks/k8s_{v}/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261105", CANONICAL),
                ("eks/optimized-ami/{v}/amazon-linux-2023/x86_64/standard/recommended/image_id",
                 "amazon-eks-node-al2023-x86_64-standard-{v}-v20261112", AMAZON),
                ("eks/optimized-ami/{v}/amazon-linux-2023/x86_64/nvidia/recommended/image_id",
                 "amazon-eks-node-al2023-x86_64-nvidia-{v}-v20261112", AMAZON))):
            found[f"/aws/service/{path.format(v=version)}"] = {
                "id": f"ami-0{number:02x}{index:x}{'5eed' * 3}a", "name": name.format(v=version), "owner": owner}
    return found


IMAGES = _images()


def image(family: str, version: str = "1.36") -> str:
    """The id of the image for Ubuntu2404, AmazonLinux2023 or AmazonLinux2023-nvidia."""
    part = {"Ubuntu2404": "ubuntu/eks/24.04/{}/", "AmazonLinux2023": "{}/amazon-linux-2023/x86_64/standard/",
            "AmazonLinux2023-nvidia": "{}/amazon-linux-2023/x86_64/nvidia/"}[family].format(version)
    return next(one["id"] for name, one in IMAGES.items() if part in name)


def motos_images() -> list[dict[str, Any]]:
    """The account's public images, as moto reads them from MOTO_AMIS_PATH."""
    return [{"ami_id": one["id"], "name": one["name"], "owner_id": one["owner"], "state": "available", "public": True,
             "image_location": f"{one['owner']}/{one['name']}", "sriov": "simple", "root_device_type": "ebs",
             "root_device_name": "/dev/sda1", "description": one["name"], "image_type": "machine", "platform": None,
             "architecture": "x86_64", "virtualization_type": "hvm", "hypervisor": "xen"} for one in IMAGES.values()]


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass
class Facts:
    """What a test may change of these answers. `refused` are IAM actions such as "ec2:RunInstances" that nobody may."""

    versions: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(VERSIONS))
    quotas: dict[tuple[str, str], tuple[str, float]] = field(default_factory=lambda: dict(QUOTAS))
    prices: list[tuple[str, str, str, str, str, dict[str, str]]] = field(default_factory=lambda: list(PRICES))
    parameters: dict[str, str] = field(default_factory=lambda: {name: one["id"] for name, one in IMAGES.items()})
    refused: set[str] = field(default_factory=set)


def answer(facts: Facts, asked: Request) -> dict[str, Any] | str | None:
    """What the account says; None where moto is to be asked; a str is XML. Raises Refused."""
    given = ANSWERS.get((asked.service, asked.operation))
    return given(facts, asked.params) if given else None


def _versions(facts: Facts, params: dict[str, Any]) -> dict[str, Any]:
    wanted = [v for v in str(params.get("clusterVersions", "")).split(",") if v]
    state = str(params.get("versionStatus") or params.get("status") or "").replace("-", "_").upper()
    found = []
    for version, (standard, extended) in facts.versions.items():
        if dt.date.fromisoformat(extended) < TODAY:
            now = "UNSUPPORTED"
        else:
            now = "STANDARD_SUPPORT" if dt.date.fromisoformat(standard) >= TODAY else "EXTENDED_SUPPORT"
        everything = params.get("includeAll") == "true" or now != "UNSUPPORTED"
        if everything and (not wanted or version in wanted) and state in ("", now):
            found.append({"clusterVersion": version, "clusterType": "eks", "defaultVersion": version == "1.35",
                          "defaultPlatformVersion": "eks.9", "kubernetesPatchVersion": f"{version}.3",
                          "releaseDate": _epoch(standard) - 425 * 86400, "endOfStandardSupportDate": _epoch(standard),
                          "endOfExtendedSupportDate": _epoch(extended), "versionStatus": now,
                          "status": now.lower().replace("_", "-")})
    if params.get("defaultOnly") == "true":
        found = [one for one in found if one["defaultVersion"]]
    return {"clusterVersions": found, "nextToken": None}


def _parameter(facts: Facts, params: dict[str, Any]) -> dict[str, Any] | None:
    name = str(params["Name"])
    if not name.startswith("/aws/service/"):
        return None
    found = _value(facts, name)
    if found is None:
        raise Refused("ParameterNotFound", "")
    return {"Parameter": found}


def _parameters(facts: Facts, params: dict[str, Any]) -> dict[str, Any] | None:
    names = list(map(str, params["Names"]))
    if not all(name.startswith("/aws/service/") for name in names):
        return None
    found = {name: _value(facts, name) for name in names}
    return {"Parameters": [one for one in found.values() if one], "InvalidParameters": [n for n in names if not found[n]]}


def _value(facts: Facts, name: str) -> dict[str, Any] | None:
    stem, _, last = name.rpartition("/")
    if last in ("release_version", "image_name") and (known := IMAGES.get(f"{stem}/image_id")):
        version = name.split("/")[5]
        value = known["name"] if last == "image_name" else f"{version}.3-{known['name'].rpartition('-v')[2]}"
    elif name in facts.parameters:
        value = facts.parameters[name]
    else:
        return None
    return {"Name": name, "Type": "String", "Value": value, "Version": 3, "LastModifiedDate": _epoch("2026-11-12"),
            "ARN": f"arn:aws:ssm:{REGION}::parameter{name}", "DataType": "text"}


def _quota(facts: Facts, params: dict[str, Any]) -> dict[str, Any]:
    key = str(params["ServiceCode"]), str(params["QuotaCode"])
    if key not in facts.quotas:
        raise Refused("NoSuchResourceException", "The request failed because the specified resource does not exist.")
    return {"Quota": _quota_entry(key, *facts.quotas[key])}


def _quota_list(facts: Facts, params: dict[str, Any]) -> dict[str, Any]:
    return {"Quotas": [_quota_entry(key, *value) for key, value in facts.quotas.items() if key[0] == params["ServiceCode"]]}


def _quota_entry(key: tuple[str, str], name: str, value: float) -> dict[str, Any]:
    return {"ServiceCode": key[0], "ServiceName": key[0], "QuotaCode": key[1], "QuotaName": name, "Value": value,
            "Unit": "None", "Adjustable": True, "GlobalQuota": False, "QuotaAppliedAtLevel": "ACCOUNT",
            "QuotaArn": f"arn:aws:servicequotas:{REGION}:123456789012:{key[0]}/{key[1]}"}


def _products(facts: Facts, params: dict[str, Any]) -> dict[str, Any]:
    found = []
    for number, (service, family, usage, unit, usd, more) in enumerate(facts.prices):
        attributes = {"servicecode": service, "usagetype": usage, "regionCode": REGION, "location": "EU (Frankfurt)",
                      "locationType": "AWS Region", **more}
        known = attributes | {"productFamily": family, "ServiceCode": service}
        wanted = [(f["Field"], f["Value"]) for f in params.get("Filters", ())]
        if service == params.get("ServiceCode") and all(known.get(name) == value for name, value in wanted):
            sku = f"SKU{number:04}"
            term = {"sku": sku, "effectiveDate": "2026-11-01T00:00:00Z", "offerTermCode": "JRTCKXETXF", "termAttributes": {},
                    "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": {
                        "unit": unit, "beginRange": "0", "endRange": "Inf", "appliesTo": [],
                        "description": f"${Decimal(usd).normalize()} per {unit}", "pricePerUnit": {"USD": usd},
                        "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7"}}}
            found.append(json.dumps({
                "product": {"productFamily": family, "attributes": attributes, "sku": sku}, "serviceCode": service,
                "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": term}}, "version": "20261101000000",
                "publicationDate": "2026-11-01T00:00:00Z"}))
    return {"FormatVersion": "aws_v1", "PriceList": found}


def _simulated(facts: Facts, params: dict[str, Any]) -> str:
    names = [value for name, value in params.items() if name.startswith("ActionNames.member.")]
    results = "".join(
        f"<member><EvalActionName>{name}</EvalActionName><EvalResourceName>*</EvalResourceName>"
        f"<EvalDecision>{'implicitDeny' if name in facts.refused else 'allowed'}</EvalDecision>"
        "<MatchedStatements/><MissingContextValues/></member>" for name in names)
    return ('<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>'
            f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
            "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></SimulatePrincipalPolicyResponse>")


def _epoch(day: str) -> int:
    return int(dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp())


ANSWERS = {
    ("eks", "DescribeClusterVersions"): _versions, ("ssm", "GetParameter"): _parameter, ("ssm", "GetParameters"): _parameters,
    ("service-quotas", "GetServiceQuota"): _quota, ("service-quotas", "GetAWSDefaultServiceQuota"): _quota,
    ("service-quotas", "ListServiceQuotas"): _quota_list, ("pricing", "GetProducts"): _products,
    ("iam", "SimulatePrincipalPolicy"): _simulated}
