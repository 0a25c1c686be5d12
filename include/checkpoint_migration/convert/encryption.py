"""Encrypted checkpoints: opened with the application's key, and each channel sealed again by itself.

`EncryptedSerializer` draws a random nonce, with which every run would write other bytes. Here the
nonce is a function of the key, of where the value stands, and of the value, so that a second run
finds its own rows; two values never share one. `EncryptedSerializer` reads the result as its own.
"""

from __future__ import annotations

import hashlib
import hmac

from ..errors import KeyNeeded
from .versions import Key

CIPHER = "aes"
NONCE = TAG = 16
SIZES = (16, 24, 32)


class Sealer:
    """Opens and seals values under one AES key, in EAX mode as LangGraph has it."""

    def __init__(self, key: bytes) -> None:
        if len(key) not in SIZES:
            raise KeyNeeded(
                "the AES key is not 16, 24 or 32 bytes long.",
                next="give the key that the application has in LANGGRAPH_AES_KEY.",
            )
        # Imported here: most sources are not encrypted, and each task would wait for it.
        from Crypto.Cipher import AES

        self._aes, self._key = AES, key
        self._nonce_key = hmac.digest(key, b"checkpoint migration: nonces", hashlib.sha256)

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes; `KeyNeeded` where the key does not open them."""
        nonce, tag, ciphertext = sealed[:NONCE], sealed[NONCE : NONCE + TAG], sealed[NONCE + TAG :]
        try:
            cipher = self._aes.new(self._key, self._aes.MODE_EAX, nonce=nonce)
            return cipher.decrypt_and_verify(ciphertext, tag)
        except ValueError:
            raise KeyNeeded(
                "an encrypted checkpoint does not open with the key given.",
                next="give the key that the application used (param aes_conn_id, or "
                "LANGGRAPH_AES_KEY on the workers); rows under another key can be excluded with threads.",
            ) from None

    def seal(self, key: Key, plain: bytes) -> bytes:
        """The sealed bytes of a channel's value at its version."""
        mac = hmac.new(self._nonce_key, digestmod=hashlib.sha256)
        for part in key:
            encoded = part.encode()
            mac.update(len(encoded).to_bytes(8) + encoded)
        mac.update(plain)
        cipher = self._aes.new(self._key, self._aes.MODE_EAX, nonce=mac.digest()[:NONCE])
        ciphertext, tag = cipher.encrypt_and_digest(plain)
        return bytes(cipher.nonce + tag + ciphertext)


def sealed_type(kind: object) -> str | None:
    """The plain type behind `msgpack+aes` or `json+aes`; None for what is not sealed so."""
    if not isinstance(kind, str):
        return None
    plain, _, cipher = kind.partition("+")
    return plain if cipher == CIPHER and plain in ("msgpack", "json") else None


def key_missing() -> KeyNeeded:
    return KeyNeeded(
        "the source holds encrypted checkpoints, and no key was given.",
        next="name an Airflow connection whose password is the key with the param aes_conn_id, or set "
        "LANGGRAPH_AES_KEY on the workers; or exclude those threads.",
    )
