#!/usr/bin/env bash
# make fresh-check [AS=root]: the README's two commands on a machine with Python 3.11 and nothing of ours.
#
# Makes a bare Debian 12 in a temporary folder (Python, make, git, no data set, no browser), a new user with an empty
# home there, and a clone of this repository's last commit; runs `make demo` and `make test` as that user, or as root.
# Everything lies in that folder and is deleted at the end. It takes about 12 GB and half an hour.
#
# What pip needs on this machine to reach its registry goes along: PIP_* and proxy variables, its configuration,
# certificates and the folder of PIP_FIND_LINKS. The network is this machine's; processes and mounts are its own.
set -euo pipefail

REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
USER_NAME=${1:-visitor}
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

refuse() { echo "fresh-check: $1" >&2; exit 2; }

check_machine() {
    [ "$USER_NAME" = visitor ] || [ "$USER_NAME" = root ] || refuse "AS=$USER_NAME; allowed: nothing, or AS=root"
    [ "$(id -u)" = 0 ] || refuse "needs root: it makes a root folder of its own and mounts into it"
    command -v debootstrap >/dev/null || refuse "needs debootstrap: apt-get install debootstrap"
    unshare --mount --pid --fork true 2>/dev/null || refuse "this machine forbids new mount and process namespaces"
}

make_debian() {
    debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates bookworm "$ROOT" >"$ROOT.log" ||
        { tail -5 "$ROOT.log"; refuse "debootstrap failed"; }
    cp /etc/resolv.conf /etc/hosts "$ROOT/etc/"
    [ ! -f "$CERTIFICATES" ] || cp "$CERTIFICATES" "$ROOT$CERTIFICATES"
    [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$ROOT/etc/pip.conf"
    chroot "$ROOT" useradd --create-home --shell /bin/bash visitor
    git -C "$REPOSITORY" bundle create --quiet "$ROOT/srv/agd.bundle" HEAD
}

mount_what_a_machine_has() {
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount --rbind /sys "$ROOT/sys"
    for wheels in ${PIP_FIND_LINKS:-}; do
        [ -d "$wheels" ] || continue
        mkdir -p "$ROOT$wheels"
        mount --bind -o ro "$wheels" "$ROOT$wheels"
    done
}

passed_on() { env | grep -E '^(PIP_[A-Z_]+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|(https?|no)_proxy|(HTTPS?|NO)_PROXY)=' || true; }

as_visitor() {
    local home=/home/visitor variables=()
    [ "$USER_NAME" = visitor ] || home=/root
    mapfile -t variables < <(passed_on)
    chroot --userspec="$USER_NAME:$USER_NAME" "$ROOT" env -i "${variables[@]}" HOME="$home" USER="$USER_NAME" \
        PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 bash -c "cd $home && $1"
}

inside() {
    mount_what_a_machine_has
    as_visitor 'echo "fresh-check: $(id -un), $(python3 --version), home holds: $(ls | wc -l) files"'
    as_visitor 'git clone --quiet /srv/agd.bundle agd && cd agd && git log -1 --oneline'
    as_visitor 'cd agd && make demo'
    as_visitor 'cd agd && make test'
    echo "fresh-check: both commands are green as $USER_NAME"
}

check_machine
if [ "${2:-}" = inside ]; then
    inside
else
    FOLDER=$(mktemp -d)
    trap 'rm -rf --one-file-system "$FOLDER"' EXIT
    export ROOT="$FOLDER/debian"
    mkdir "$ROOT"
    make_debian
    unshare --mount --pid --fork --kill-child bash "$0" "$USER_NAME" inside
fi
