#!/usr/bin/env bash
# Writes requirements/dev.lock: every package at one version with its hashes, for all supported Pythons. Needs uv.
set -euo pipefail
uv pip compile -q --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/dev.lock
