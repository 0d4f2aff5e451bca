"""Certificates for tests, made when they are asked for."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> None:
        """As NAME.crt and NAME.key."""
        (directory / f"{name}.crt").write_bytes(self.certificate)
        (directory / f"{name}.key").write_bytes(self.key)


class Authority:
    """A CA of its own."""

    def __init__(self, name: str) -> None:
        self._ca = trustme.CA(organization_name=name)
        self.certificate = self._ca.cert_pem.bytes()

    def server(self, name: str) -> Pair:
        """For the loopback; ``name`` stands in it as its organisation."""
        return _pair(self._ca.issue_cert("127.0.0.1", "localhost", organization_name=name))

    def client(self, name: str) -> Pair:
        return _pair(self._ca.issue_cert(f"{name}@example.org", organization_name=name))

    def context(self) -> ssl.SSLContext:
        """A client's, which trusts this authority only."""
        return ssl.create_default_context(cadata=self.certificate.decode())


def _pair(leaf: trustme.LeafCert) -> Pair:
    chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
    return Pair(chain, leaf.private_key_pem.bytes())


@lru_cache
def authority(name: str = "ours") -> Authority:
    return Authority(name)


def organization(connected: ssl.SSLSocket) -> str:
    """Whose certificate a server has shown."""
    found = connected.getpeercert()
    assert found
    return dict(pair[0] for pair in found["subject"])["organizationName"]  # type: ignore[misc]
