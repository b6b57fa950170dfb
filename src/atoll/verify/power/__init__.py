"""Power: a disk that forgets what was never forced to it, for any server that runs on a folder.

`disk` keeps the files and what a power cut would undo; `protocol` and `kernel` speak with Linux over
/dev/fuse; `mount` starts and ends it from outside, and pulls the plug.
"""
