"""The NATS engine: a Register on a JetStream key-value bucket."""

from atoll.engines.nats.register import NatsOptions, NatsRegister

__all__ = ["NatsOptions", "NatsRegister"]
