"""The Consul engine: a Register on Consul's key-value store."""

from atoll.engines.consul.register import ConsulOptions, ConsulRegister

__all__ = ["ConsulOptions", "ConsulRegister"]
