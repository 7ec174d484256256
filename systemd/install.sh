#!/usr/bin/env bash
# Install or upgrade scentd as a service of systemd. Run it again at any time: the configuration,
# its secrets and the state are never touched. uninstall.sh undoes it.
#
# A release is built beside the running one and becomes current by one rename, only after it has
# run every shipped model once; if the service does not start with it, the one before comes back.
# The network is used by pip alone, and every file that pip fetches must have the hash that
# requirements.txt names.
set -euo pipefail
umask 022

usage() {
    cat <<'TEXT'
usage: sudo systemd/install.sh [--rig NAME]... [--wheel FILE] [--find-links DIR] [--no-start]

  --rig NAME        one of several boards on this computer: /etc/scentd/NAME/scentd.yaml, run as
                    scentd@NAME; without it the one rig is /etc/scentd/scentd.yaml, run as scentd
  --wheel FILE      this wheel of scentd (default: one beside this script, else one built from the
                    checkout that this script lies in)
  --find-links DIR  no network at all: what requirements.txt names lies in DIR
  --python FILE     the Python that the environment is made with (default: python3)
  --no-start        enable the service, but leave starting it to you or the next boot
  --root DIR        put everything below DIR, as for an image; starts nothing

Example: sudo systemd/install.sh
TEXT
}

say() { echo "$*" >&2; }

fail() {
    say "install.sh: $*"
    exit 1
}

misused() {
    say "install.sh: $*"
    usage >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root='' wheel='' links='' python=python3 start=yes rigs=()
while (($#)); do
    case $1 in
        --rig | --wheel | --find-links | --python | --root)
            (($# >= 2)) || misused "$1 wants a value."
            ;;&
        --rig) rigs+=("$2") && shift ;;
        --wheel) wheel=$2 && shift ;;
        --find-links) links=$2 && shift ;;
        --python) python=$2 && shift ;;
        --root) root=$2 && shift ;;
        --no-start) start=no ;;
        -h | --help) usage && exit 0 ;;
        *) misused "there is no option $1." ;;
    esac
    shift
done
for rig in "${rigs[@]}"; do
    [[ $rig =~ ^[a-z0-9_-]{1,32}$ ]] || misused "a rig's name is of a-z, 0-9, _ and -, not '$rig'."
done
[ -z "$wheel" ] || [ -f "$wheel" ] || misused "there is no wheel $wheel."
if [ -n "$links" ]; then
    [ -d "$links" ] || misused "there is no folder $links."
    links=$(cd "$links" && pwd)
fi
if [ -n "$root" ]; then
    mkdir -p "$root"
    root=$(cd "$root" && pwd)
fi
[ "$root" != / ] || root=''
opt=$root/opt/scentd
[ -z "$wheel" ] || wheel=$(realpath "$wheel")
cd /  # whatever folder this was called in may be gone, or not be ours

check_system() {
    case $(uname -m) in
        x86_64 | aarch64) ;;
        *)
            fail "this is a 32-bit or unknown system ($(uname -m)). scentd needs x86_64 or aarch64:" \
                "ONNX Runtime, which runs the models, is not made for others. On a Raspberry Pi 3" \
                "or later write the 64-bit Raspberry Pi OS onto the card."
            ;;
    esac
    command -v "$python" >/dev/null || fail "there is no $python. Run: sudo apt install python3-venv"
    local bits
    bits=$("$python" -I -c 'import struct; print(8 * struct.calcsize("P"))')
    [ "$bits" = 64 ] ||
        fail "the kernel is a 64-bit one, but $python is a $bits-bit program: the system is a" \
            "32-bit one, for which ONNX Runtime is not made. Write the 64-bit Raspberry Pi OS onto" \
            "the card."
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V 2>&1) is too old: scentd needs 3.11 or newer, as Debian 12 and" \
            "Raspberry Pi OS have it since 2023. Another one is named with --python."
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make environments. Run: sudo apt install python3-venv"
    [ -z "$root" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "writing to /opt and /etc is root's. Run: sudo $0"
    [ -d /run/systemd/system ] ||
        fail "systemd does not run here. In a container run 'scentd run --config FILE' by the" \
            "container's own means; --root DIR puts the files down and starts nothing."
}

# Run pip in an environment of ours; it learns nothing of the user's: neither configuration nor
# variables nor cache, so that nobody's index or mirror can slip a package in.
run_pip() {
    local environment=$1 command=$2
    shift 2
    # One date for every file of the wheel: what is the same again is then seen to be the same.
    env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 PIP_CONFIG_FILE=/dev/null \
        SOURCE_DATE_EPOCH=315532800 \
        ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        "$environment/bin/python" -I -m pip --isolated --quiet --disable-pip-version-check \
        --no-input --no-cache-dir "$command" --no-deps "$@"
}

install_pinned() {
    local environment=$1 file=$2 from=()
    [ -z "$links" ] || from=(--no-index --find-links "$links")
    run_pip "$environment" install --require-hashes --only-binary :all: "${from[@]}" -r "$file"
}

# Name the wheel to install in $wheel; build it from a copy, so that the checkout stays clean.
find_wheel() {
    [ -z "$wheel" ] || return 0
    local beside=("$here"/scentd-*.whl)
    if [ -f "${beside[-1]}" ]; then
        wheel=${beside[-1]}
        return 0
    fi
    local checkout
    checkout=$(dirname "$here")
    [ -f "$checkout/pyproject.toml" ] ||
        fail "there is no wheel of scentd beside this script, and this is no checkout of it." \
            "Name one with --wheel FILE."
    say "Building scentd from $checkout ..."
    mkdir "$work/source"
    local part
    for part in pyproject.toml README.md LICENSE hardware models calibration daemon training; do
        cp -r "$checkout/$part" "$work/source/"
    done
    "$python" -I -m venv "$work/build"
    install_pinned "$work/build" "$here/build-requirements.txt"
    run_pip "$work/build" wheel --no-build-isolation --no-index -w "$work" "$work/source"
    wheel=$(echo "$work"/scentd-*.whl)
}

# Build the release of $wheel below $opt/releases, unless it is there, and name it in $release.
build_release() {
    local digest version
    digest=$({ sha256sum <"$wheel" && sha256sum <"$here/requirements.txt" &&
        "$python" -I -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum)
    version=$(basename "$wheel" | cut -d- -f2)
    release=$opt/releases/$version-${digest:0:12}
    if [ -f "$release/whole" ]; then
        say "scentd $version is there already."
        return 0
    fi
    say "Installing scentd $version into ${release#"$root"} (minutes on a Raspberry Pi) ..."
    rm -rf "$release"  # a try that was cut off
    unfinished=$release
    mkdir -p "$opt/releases"
    "$python" -I -m venv "$release"
    install_pinned "$release" "$here/requirements.txt"
    run_pip "$release" install --no-index "$wheel"
    say "Running every model once ..."
    "$release/bin/python" -I -m daemon.cli models verify >&2 ||
        fail "scentd $version does not run its models here; nothing was changed."
    touch "$release/whole"
    unfinished=''
}

# Copy a file only where there is none: what stands there is its owner's.
keep_or_put() {
    [ -e "$2" ] || install -D -m 644 "$1" "$2"
}

put_configuration() {
    install -d -m 755 "$root/etc/scentd"
    if ((!${#rigs[@]})) && [ -z "$(ls -d "$root"/etc/scentd/*/scentd.yaml 2>/dev/null)" ] ||
        [ -e "$root/etc/scentd/scentd.yaml" ]; then
        keep_or_put "$here/scentd.yaml" "$root/etc/scentd/scentd.yaml"
        [ -d "$root/etc/scentd/credentials" ] || install -d -m 700 "$root/etc/scentd/credentials"
    fi
    local rig
    for rig in "${rigs[@]}"; do
        local folder=$root/etc/scentd/$rig
        [ -d "$folder/credentials" ] || install -d -m 755 "$folder"
        [ -d "$folder/credentials" ] || install -d -m 700 "$folder/credentials"
        sed -e "s/^rig_id: rig\$/rig_id: $rig/" -e "s|/var/lib/scentd\$|/var/lib/scentd-$rig|" \
            -e "s|/etc/scentd/credentials|/etc/scentd/$rig/credentials|" \
            -e "s|reload scentd |reload scentd@$rig |" "$here/scentd.yaml" >"$work/scentd.yaml"
        keep_or_put "$work/scentd.yaml" "$folder/scentd.yaml"
    done
}

put_files() {
    install -D -m 644 -t "$root/etc/systemd/system" "$here/scentd.service" "$here/scentd@.service"
    install -D -m 644 -t "$root/etc/udev/rules.d" "$here/99-scentd.rules"
    install -D -m 755 "$here/uninstall.sh" "$opt/uninstall.sh"
    # Not the script that pip writes: its first line would name a folder below --root.
    printf '#!/bin/sh\nexec /opt/scentd/current/bin/python -I -m daemon.cli "$@"\n' >"$work/scentd"
    install -D -m 755 "$work/scentd" "$root/usr/local/bin/scentd"
}

# Let $opt/current lead to a release, in one step that a power cut cannot halve.
make_current() {
    ln -sfn "releases/$(basename "$1")" "$opt/current.new"
    mv -fT "$opt/current.new" "$opt/current"
}

units() {
    [ ! -e /etc/scentd/scentd.yaml ] || echo scentd.service
    local file
    for file in /etc/scentd/*/scentd.yaml; do
        [ ! -e "$file" ] || echo "scentd@$(basename "$(dirname "$file")").service"
    done
}

start_units() {
    local unit failed=0
    for unit in $(units); do
        systemctl restart "$unit" || failed=1
    done
    return $failed
}

# Keep the release that runs and the one before it, to go back to.
forget_old_releases() {
    local folder
    for folder in "$opt"/releases/*/; do
        case $(basename "$folder") in
            "$(basename "$release")" | "$(basename "$before")") ;;
            *) rm -rf "$folder" ;;
        esac
    done
}

check_system
work=$(mktemp -d)
unfinished=''
trap 'rm -rf "$work" ${unfinished:+"$unfinished"}' EXIT
before=''
[ ! -L "$opt/current" ] || before=$opt/releases/$(basename "$(readlink "$opt/current")")
find_wheel
build_release
put_configuration
put_files
make_current "$release"

if [ -z "$root" ]; then
    systemctl daemon-reload
    # Name the boards that are plugged in already; a container has no udev.
    if udevadm control --reload 2>/dev/null; then
        udevadm trigger --subsystem-match=tty --subsystem-match=usb
    fi
    # shellcheck disable=SC2046 # the names of units hold no spaces
    systemctl --quiet enable $(units)
    if [ "$start" = yes ] && ! start_units; then
        say "The service did not start:"
        journalctl --no-pager --output=cat --lines=20 --unit='scentd*' >&2 || true
        if [ -n "$before" ] && [ "$before" != "$release" ]; then
            make_current "$before"
            start_units || true
            rm -rf "$release"
            fail "the release before, $(basename "$before"), is back."
        fi
        fail "mend /etc/scentd, see the lines above; the service tries again every 5 s."
    fi
fi
if [ "$before" != "$release" ]; then forget_old_releases; fi
say "scentd is installed. Its configuration: /etc/scentd. Its log: journalctl -u scentd"
