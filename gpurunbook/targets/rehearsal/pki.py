"""Two kinds of certificates: those between the API server and the pod host, and a user's, signed by the cluster's own CA.

The first kind's CA is used for nothing else, so its signature is the whole authorization: the cluster's own certificates,
the administrator's included, do not open the pod host's port.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA, SERVER, CLIENT = "ca", "kubelet", "apiserver-client"
DAYS = 365


def make(folder: Path) -> None:
    """Write `ca.crt`, `kubelet.crt/.key` (server, 127.0.0.1) and `apiserver-client.crt/.key` into a 0700 folder.

    The CA's key is thrown away: nothing can be signed later. Every file is 0600. Existing files are replaced.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("gpurunbook pod host CA")
    ca = _builder(ca_name, ca_name, ca_key.public_key(), ca_key, ca=True).sign(ca_key, hashes.SHA256())
    _write(folder / f"{CA}.crt", ca.public_bytes(serialization.Encoding.PEM))
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for file, usage, names in ((SERVER, ExtendedKeyUsageOID.SERVER_AUTH, loopback),
                               (CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH, None)):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(f"gpurunbook {file}"), ca_name, key.public_key(), ca_key, ca=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(ca_key, hashes.SHA256())
        _write(folder / f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        _write(folder / f"{file}.key", _private(key))


def sign_client(folder: Path, user: str, group: str) -> tuple[Path, Path]:
    """Sign a client certificate with the `ca.crt` and `ca.key` of a folder; its files, both 0600, go there too.

    Args:
        user: the common name, which Kubernetes takes for the user's name.
        group: the organisation, which Kubernetes takes for a group.

    Raises:
        OSError, ValueError: there is no CA in the folder, or none that can be read.
    """
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    if not isinstance(ca_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'ca.key'}: {type(ca_key).__name__} signs no certificates")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(user, group), ca.subject, key.public_key(), ca_key, ca=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    signed = builder.sign(ca_key, hashes.SHA256())
    files = folder / f"{user}.crt", folder / f"{user}.key"
    _write(files[0], signed.public_bytes(serialization.Encoding.PEM))
    _write(files[1], _private(key))
    return files


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _name(common: str, organisation: str = "") -> x509.Name:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey,
             ca_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(digital_signature=not ca, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=ca, crl_sign=ca,
                          encipher_only=False, decipher_only=False)
    return (x509.CertificateBuilder()
            .subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(usage, critical=True)
            # Python 3.13 and later refuse certificates without the key identifiers of RFC 5280.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False))


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
