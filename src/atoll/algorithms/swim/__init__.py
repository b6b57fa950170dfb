"""SWIM with Lifeguard: who is in, who is suspected, who is gone, as a machine without network or clock."""
