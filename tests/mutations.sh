#!/usr/bin/env bash
# Breaks every rule of docs/step.md, one at a time, in a copy of the tree, and wants the test named beside it to turn red.
# Prints a line per rule and `n of n`; an edit that no longer fits, or a test that is not there, is an error, not a catch.
#
#   tests/mutations.sh              every rule (about 20 s each once built)
#   tests/mutations.sh --only 12    one rule        --list   what there is
#   tests/mutations.sh --log FILE   write the lines, dated, to FILE too
set -euo pipefail
exec python3 "$(dirname "$0")/mutations/run.py" "$@"
