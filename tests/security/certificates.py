"""Certificates as an operator would make them, by the openssl binary: an authority, and what it vouches for."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_CA = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")


class Authority:
    """A certificate authority of its own.

    Attributes:
        certificate: its PEM file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        named = ("-out", f"{name}.pem", "-subj", f"/CN={name}")
        self._openssl("req", "-x509", *_KEY, "-nodes", *_CA, "-days", "2", "-keyout", f"{name}.key", *named)

    def vouch(
        self, name: str, *, alternative_name: str, days: int = 2, password: str | None = None
    ) -> tuple[Path, Path]:
        """A certificate for ``alternative_name`` (``IP:127.0.0.1``) and its key, as PEM files; expired when days is -1."""
        hidden = ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
        request = ("-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl("req", *_KEY, *hidden, "-keyout", f"{name}.key", *request)
        (self._folder / f"{name}.ext").write_text(
            f"subjectAltName={alternative_name}\nauthorityKeyIdentifier=keyid\nkeyUsage=digitalSignature\n", "ascii"
        )
        signer = ("-CA", f"{self._name}.pem", "-CAkey", f"{self._name}.key", "-CAcreateserial")
        made = ("-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.pem", "-days", f"{days}")
        self._openssl("x509", "-req", *signer, *made)
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self._folder, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
