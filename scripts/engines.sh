#!/usr/bin/env bash
# Installs the servers and tools that the tests and `atoll verify --start` use, as Debian packages; starts none of them.
# Run again it does nothing. Without root, or with --show, it prints what it would do and ends with 1 if anything is missing.
set -euo pipefail

# What must be there -> the package that brings it. The first column is a command, or an absolute path.
needs() {
    cat <<'TABLE'
etcd                                     etcd-server
redis-server                             redis-server
/usr/lib/postgresql/*/bin/postgres       postgresql
pgbouncer                                pgbouncer
/usr/share/java/zookeeper.jar            zookeeper
mariadbd                                 mariadb-server
nats-server                              nats-server
ip                                       iproute2
iptables                                 iptables
cc                                       gcc
/usr/include/time.h                      libc6-dev
openssl                                  openssl
java                                     default-jre-headless
TABLE
}

PATH="$PATH:/usr/sbin:/sbin"
missing=()
while read -r thing package; do
    case $thing in
        /*) compgen -G "$thing" >/dev/null || missing+=("$package") ;;
        *) command -v "$thing" >/dev/null || missing+=("$package") ;;
    esac
done < <(needs)

if [ ${#missing[@]} -eq 0 ]; then
    echo "all servers are here: nothing to install"
    exit 0
fi
if [ "${1:-}" = --show ] || [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}"
    echo "as root on Debian or Ubuntu: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
fi

# No package may start a daemon while it is installed: the tests start their own, each in its own folder.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
mkdir -p /usr/share/man/man1 # slim images lack it, and the Java package stumbles over that
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
echo "installed: ${missing[*]}; none of them was started"
