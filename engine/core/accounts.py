"""Accounts of the XRP Ledger: what an address says."""


def account_id(address: str) -> bytes:
    """Return the 20 bytes of a classic address.

    Raises:
        xrpl.core.addresscodec.XRPLAddressCodecException: the address does not check out.
    """
    # xrpl-py takes half a second to import, and a shard that restarts never needs it.
    from xrpl.core.addresscodec import decode_classic_address

    return decode_classic_address(address)


def is_account(address: str) -> bool:
    """Say whether `address` is a classic address with a true checksum."""
    from xrpl.core.addresscodec import is_valid_classic_address  # as above

    return is_valid_classic_address(address)
