#!/usr/bin/env bash
# Install or upgrade scentd as a systemd service. It can be run again at any time: configuration,
# secrets and state are never changed. uninstall.sh removes what it installs.
#
# A new release is built beside the running one. It becomes current by one rename, after it has run
# every shipped model once. If the service then does not start, the previous release is restored.
# Only pip uses the network, and every file that it fetches must match a hash in requirements.txt
# or requirements-web.txt.
set -euo pipefail
umask 022

usage() {
    cat <<'TEXT'
usage: sudo systemd/install.sh [--rig NAME]... [--web] [--wheel FILE] [--find-links DIR]
                               [--ca FILE] [--no-start]

  --rig NAME        one of several boards on this computer: /etc/scentd/NAME/scentd.yaml, run as
                    scentd@NAME; without it the only rig is /etc/scentd/scentd.yaml, run as scentd
  --web             serve the web page too, on this computer; later upgrades keep it without --web
  --wheel FILE      the wheel of scentd to install (default: one beside this script, else one built
                    from the checkout that contains this script)
  --find-links DIR  use no network: DIR holds the files that requirements.txt names, with --web those
                    of requirements-web.txt, and without a wheel those of build-requirements.txt
  --ca FILE         trust the certificate authorities in this PEM file when fetching packages, and no
                    others: for a network with its own authority
  --python FILE     the Python that creates the environment (default: python3)
  --no-start        enable the service, but do not start it
  --root DIR        install below DIR, for example for an image; starts nothing

Example: sudo systemd/install.sh
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=systemd/units.sh
source "$here/units.sh"
unit_python=/opt/scentd/current/bin/python
root='' wheel='' links='' ca='' python=python3 start=yes web=no rigs=()
while (($#)); do
    case $1 in
        --rig | --wheel | --find-links | --ca | --python | --root)
            (($# >= 2)) || misused "$1 needs a value."
            ;;&
        --rig) rigs+=("$2") && shift ;;
        --wheel) wheel=$2 && shift ;;
        --find-links) links=$2 && shift ;;
        --ca) ca=$2 && shift ;;
        --python) python=$2 && shift ;;
        --root) root=$2 && shift ;;
        --web) web=yes ;;
        --no-start) start=no ;;
        -h | --help) usage && exit 0 ;;
        *) misused "there is no option $1." ;;
    esac
    shift
done
check_rig_names
[ -z "$wheel" ] || [ -f "$wheel" ] || misused "there is no wheel $wheel."
if [ -n "$links" ]; then
    [ -d "$links" ] || misused "there is no folder $links."
    links=$(cd "$links" && pwd)
fi
if [ -n "$ca" ]; then
    [ -f "$ca" ] || misused "there is no file $ca."
    ca=$(realpath "$ca")
fi
find_system
opt=$root/opt/scentd
[ -z "$wheel" ] || wheel=$(realpath "$wheel")
cd /  # the current folder may not exist any more, or not be readable

check_system() {
    case $(uname -m) in
        x86_64 | aarch64) ;;
        *)
            fail "this is a 32-bit or unknown system ($(uname -m)). scentd needs x86_64 or aarch64:" \
                "ONNX Runtime, which runs the models, does not exist for other systems. On a" \
                "Raspberry Pi 3 or later, write the 64-bit Raspberry Pi OS to the card."
            ;;
    esac
    command -v "$python" >/dev/null || fail "there is no $python. Run: sudo apt install python3-venv"
    local bits
    bits=$("$python" -I -c 'import struct; print(8 * struct.calcsize("P"))')
    [ "$bits" = 64 ] ||
        fail "the kernel is 64-bit, but $python is a $bits-bit program: this is a 32-bit system, for" \
            "which ONNX Runtime does not exist. Write the 64-bit Raspberry Pi OS to the card."
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V 2>&1) is too old: scentd needs 3.11 or newer, which Debian 12 and" \
            "Raspberry Pi OS have had since 2023. Name another one with --python."
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot create environments. Run: sudo apt install python3-venv"
    check_systemd
    check_no_package
}

# Run pip in one of our environments. It ignores the user's configuration, variables and cache, so
# that no index or mirror of the user can supply a package.
run_pip() {
    local environment=$1 command=$2
    shift 2
    # With one date for every file, a rebuilt wheel of the same sources is identical.
    env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 PIP_CONFIG_FILE=/dev/null \
        SOURCE_DATE_EPOCH=315532800 \
        ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        "$environment/bin/python" -I -m pip --isolated --quiet --disable-pip-version-check \
        --no-input --no-cache-dir ${ca:+--cert "$ca"} "$command" --no-deps "$@"
}

install_pinned() {
    local environment=$1 file=$2 from=()
    [ -z "$links" ] || from=(--no-index --find-links "$links")
    run_pip "$environment" install --require-hashes --only-binary :all: "${from[@]}" -r "$file"
}

# Set $wheel to the wheel to install. A checkout is built from a copy, so that it stays clean.
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
        fail "there is no wheel of scentd beside this script, and this is not a checkout of scentd." \
            "Name a wheel with --wheel FILE."
    say "Building scentd from $checkout ..."
    mkdir "$work/source"
    local part
    for part in pyproject.toml setup.py packaging LICENSE scentd hardware models calibration daemon training systemd; do
        cp -r "$checkout/$part" "$work/source/"
    done
    "$python" -I -m venv "$work/build"
    install_pinned "$work/build" "$here/build-requirements.txt"
    run_pip "$work/build" wheel --no-build-isolation --no-index -w "$work" "$work/source"
    wheel=$(echo "$work"/scentd-*.whl)
}

# List the files of pinned packages of a release.
requirements() {
    echo "$here/requirements.txt"
    [ "$web" = no ] || echo "$here/requirements-web.txt"
}

# Build the release of $wheel below $opt/releases, unless it exists, and set $release to it.
build_release() {
    local digest version file files
    mapfile -t files < <(requirements)
    digest=$({ sha256sum <"$wheel" && cat "${files[@]}" | sha256sum &&
        "$python" -I -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum)
    version=$(basename "$wheel" | cut -d- -f2)
    release=$opt/releases/$version-${digest:0:12}
    if [ -f "$release/whole" ]; then
        say "scentd $version is already installed."
        return 0
    fi
    say "Installing scentd $version into ${release#"$root"} (minutes on a Raspberry Pi) ..."
    rm -rf "$release"  # left by an interrupted installation
    unfinished=$release
    mkdir -p "$opt/releases"
    "$python" -I -m venv "$release"
    for file in "${files[@]}"; do install_pinned "$release" "$file"; done
    run_pip "$release" install --no-index "$wheel"
    say "Running every model once ..."
    "$release/bin/python" -I -m scentd models verify >&2 ||
        fail "scentd $version cannot run its models on this computer. Nothing was changed."
    [ "$web" = no ] ||
        "$release/bin/python" -I -c 'import prometheus_client, starlette, uvicorn, websockets' ||
        fail "the packages of the page cannot be used on this computer. Nothing was changed."
    touch "$release/whole"
    unfinished=''
}

put_files() {
    put_configuration
    put_units
    install -D -m 755 "$here/uninstall.sh" "$opt/uninstall.sh"
}

# Link $opt/current to a release, by one rename that a power cut cannot interrupt.
make_current() {
    ln -sfn "releases/$(basename "$1")" "$opt/current.new"
    mv -fT "$opt/current.new" "$opt/current"
}

# Keep the current release and the previous one.
remove_old_releases() {
    local folder
    for folder in "$opt"/releases/*/; do
        case $(basename "$folder") in
            "$(basename "$release")" | "$(basename "$previous")") ;;
            *) rm -rf "$folder" ;;
        esac
    done
}

# Let one installation run at a time: a second one would remove what the first is building.
lock_installation() {
    mkdir -p "$opt"
    command -v flock >/dev/null || fail "there is no flock. Run: sudo apt install util-linux"
    exec 9>>"$opt/.install.lock"
    flock -n 9 || fail "another installation is under way. Start this one again when it has ended."
}

check_system
lock_installation
work=$(mktemp -d)
unfinished=''
trap 'rm -rf "$work" ${unfinished:+"$unfinished"}' EXIT
previous=''
[ ! -L "$opt/current" ] || previous=$opt/releases/$(basename "$(readlink "$opt/current")")
find_wheel
build_release
put_files
make_current "$release"

if [ -z "$root" ] && ! enable_units; then
    if [ -n "$previous" ] && [ "$previous" != "$release" ]; then
        make_current "$previous"
        take_page_back
        start_units || true
        rm -rf "$release"
        fail "the previous release, $(basename "$previous"), was restored."
    fi
    fail "correct /etc/scentd, see the lines above. The service tries again every 5 s."
fi
if [ "$previous" != "$release" ]; then remove_old_releases; fi
if [ -z "$root" ] && [ "$start" = yes ]; then start_page; fi
say_what_is_installed
