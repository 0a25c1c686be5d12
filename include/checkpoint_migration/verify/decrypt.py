"""Opens an encrypted value with the application's key, by none of the conversion's code."""

from __future__ import annotations

from .source_checkpoint import Decrypt

NONCE = TAG = 16


def decrypting(key: bytes | None) -> Decrypt | None:
    """What turns (type, bytes) of a value into its plain bytes; None without a key."""
    if key is None:
        return None
    # Imported here: most sources are not encrypted, and each task would wait for it.
    from Crypto.Cipher import AES

    def decrypt(_kind: str, sealed: bytes) -> bytes:
        cipher = AES.new(key, AES.MODE_EAX, nonce=sealed[:NONCE])
        return cipher.decrypt_and_verify(sealed[NONCE + TAG :], sealed[NONCE : NONCE + TAG])

    return decrypt
