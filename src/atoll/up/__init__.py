"""`atoll up`: starts, watches, scales and replaces the user's processes on one machine."""
