#!/usr/bin/env bash
# Hammers redemptions: 64 clients on two servers reserve, confirm, release and roll back, each call repeated until its answer is
# final, while the servers are killed and PostgreSQL crashes. Then asserts that every answer is accounted for, and that
# redemption_invariants.sql finds nothing.
#
#   tests/faults/redemptions.sh [CALLS]      100,000 calls unless another number is given
set -euo pipefail
cd "$(dirname "$0")/../.."
LIKEMIND_HAMMER_CALLS=${1:-100000} RUST_BACKTRACE=0 \
  cargo test --test it -- --ignored --nocapture --exact coupons::redemption::hammer::no_fault_breaks_an_invariant_of_redemptions
