#!/usr/bin/env bash
# Dependencies between crates point one way, and linking a domain crate must not pull in a cloud SDK.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0

depends() { cargo tree --quiet --edges normal --prefix none --package "$1" | awk '{ print $1 }' | sort -u; }

forbid() {
    local package=$1 pattern=$2 found
    found=$(depends "$package" | grep -E "$pattern" | grep -vx "$package" || true)
    if [ -n "$found" ]; then
        echo "$package must not depend on: $(echo "$found" | tr '\n' ' ')" >&2
        fail=1
    fi
}

forbid backstay-backup-core '^(aws-|backstay-)'
forbid backstay-postgres-ops '^(aws-|backstay-(storage-s3|cli|testkit|redis-ops|file-ops|dns-failover|notify|recovery))'
forbid backstay-redis-ops '^(aws-|backstay-(storage-s3|cli|testkit|postgres-ops|file-ops|dns-failover|notify|recovery))'
forbid backstay-notify '^(aws-|backstay-(storage-s3|cli|testkit|postgres-ops|redis-ops|file-ops|dns-failover|recovery))'
forbid backstay-file-ops '^(aws-|backstay-(storage-s3|cli|testkit|postgres-ops|redis-ops|dns-failover|notify|recovery))'
forbid backstay-storage-s3 '^backstay-(postgres-ops|cli|testkit|redis-ops|dns-failover|notify|recovery)'
forbid backstay-cli '^backstay-testkit'
[ "$fail" = 0 ] && echo "directions between crates: right"
exit "$fail"
