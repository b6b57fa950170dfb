"""Engines: how a product keeps a port's promises. One file, or one folder, for each product.

LAW: imports ports, errors, clock, algorithms and its client library; translates errors at its edge.
"""
