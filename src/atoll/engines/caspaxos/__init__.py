"""The CASPaxos engine: a Register kept by a majority of independent registers or stores."""

from atoll.engines.caspaxos.options import CasPaxosOptions
from atoll.engines.caspaxos.register import CasPaxosRegister

__all__ = ["CasPaxosOptions", "CasPaxosRegister"]
