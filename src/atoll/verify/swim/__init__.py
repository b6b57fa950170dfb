"""SWIM simulated: groups of the real machine on a simulated network, and what is measured on them."""
