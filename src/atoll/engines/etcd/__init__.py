"""etcd: a store kept by a committee of servers, by a client of our own."""

from atoll.engines.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
