# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck disable=SC2034
# tools/lib.sh: what the commands in tools/ share. Sourced, never run. Bash and perl-base only, so
# that every command works on a machine that has nothing installed yet.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
DEPS=$ROOT/.deps

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s (try --help)\n' "${0##*/}" "$*" >&2
    exit 2
}

# The comment block at the head of a command is its --help, so that the two cannot drift apart.
print_help() {
    sed -n '2,/^[^#]/{/^# SPDX/d;/^#/s/^# \{0,1\}//p}' "$0"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

jobs_count() {
    nproc 2>/dev/null || echo 2
}

# The path of a command as a person would type it from where they stand.
as_typed() {
    local path=$1

    if [[ $path == "$PWD"/* ]]; then
        path=${path#"$PWD"/}
    fi
    printf '%q' "$path"
}

# Third-party builds and downloads live outside the checkout, so that a second clone is quick.
cache_dir() {
    printf '%s\n' "${SLUICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sluice}"
}

# How the build finds the libraries that tools/deps made.
pkg_config_path() {
    printf '%s\n' "$DEPS/prefix/lib/pkgconfig"
}

# unpacked COMMAND...: runs it with what tools/deps has unpacked under .deps/root/ in front of what
# the host has (coturn's commands, for one), and with its libraries.
unpacked() {
    local root=$DEPS/root arch

    arch=$(gcc -print-multiarch)
    PATH=$root/usr/bin:$PATH \
        LD_LIBRARY_PATH=$root/usr/lib/$arch:$root/lib/$arch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        "$@"
}

host_codename() {
    # shellcheck disable=SC1091
    (. /etc/os-release 2>/dev/null && printf '%s\n' "${VERSION_CODENAME:-unknown}")
}

# The mirrors this host already uses, first the main archive, then security: no host name is ours.
# `update --print-uris` only prints, and it reads every form of apt's source lists.
host_mirrors() {
    local kind=$1 codename

    codename=$(host_codename)
    apt-get --print-uris update 2>/dev/null |
        sed -n "s|^'\(.*\)/dists/\([^' ]*\)/InRelease'.*|\1 \2|p" |
        while read -r uri suite; do
            case $kind:$suite in
            "main:$codename" | "security:$codename-security" | "security:$codename/updates")
                printf '%s\n' "$uri"
                ;;
            esac
        done | uniq
    case $kind in # nothing configured: Debian's own canonical names
    main) printf '%s\n' http://deb.debian.org/debian ;;
    security) printf '%s\n' http://deb.debian.org/debian-security ;;
    esac
}

# The host's own way to its mirrors: proxies, certificates, dates. In apt.conf's syntax.
host_apt_settings() {
    apt-config dump | grep -E '^Acquire::' |
        grep -vE '^Acquire::(IndexTargets|Languages|Changelogs|GzipIndexes|CompressionTypes)' || true
}

STEP_PID=0 STEP_STATUS=0 STEP_LIMIT=0

# Ctrl-C and kill reach every process of the step that runs, not only its first.
step_stop() {
    if ((STEP_PID)); then
        kill -TERM -- "-$STEP_PID" 2>/dev/null
        STEP_PID=0
    fi
}

step_traps() {
    trap 'step_stop; exit 130' INT
    trap 'step_stop; exit 143' TERM HUP
}

# step_run LABEL LOG COMMAND...: runs a command or a function with its output in LOG; every ten
# seconds one line says that it is alive. Prints nothing else. The result is in STEP_STATUS, not in
# the return value: called as a condition, bash would ignore `set -e` inside the step. A step that
# takes longer than STEP_LIMIT seconds (0: no limit) is stopped with all it started; status 124.
step_run() {
    local label=$1 log=$2 began=$SECONDS pid beat=10 late=0
    shift 2

    set -m # its own process group: this is what step_stop kills
    (
        set -eu
        "$@"
    ) >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    STEP_PID=$pid
    while kill -0 "$pid" 2>/dev/null; do
        # A short nap, not `wait`, so that the heartbeat needs no second process to clean up.
        sleep 0.1
        if ((SECONDS - began >= beat)); then
            say "$label … $((SECONDS - began)) s so far"
            beat=$((beat + 10))
        fi
        if ((STEP_LIMIT && SECONDS - began >= STEP_LIMIT && late == 0)); then
            late=1
            kill -TERM -- "-$pid" 2>/dev/null
        elif ((late && SECONDS - began >= STEP_LIMIT + 5)); then
            kill -KILL -- "-$pid" 2>/dev/null
        fi
    done
    wait "$pid"
    STEP_STATUS=$?
    STEP_PID=0
    if ((late)); then
        STEP_STATUS=124
    fi
}
