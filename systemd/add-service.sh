#!/usr/bin/env bash
# Add the service of an environment that has scentd: configuration, units and rule. `scentd service
# install` calls it. It can be run again at any time: configuration, secrets and state are never
# changed. uninstall.sh removes what it adds.
set -euo pipefail
umask 022

usage() {
    cat <<'TEXT'
usage: add-service.sh --python FILE [--rig NAME]... [--web] [--no-start] [--root DIR]

  --python FILE     the interpreter of the environment, as the service will find it
  --rig, --web, --no-start, --root    as those of install.sh

Example: sudo systemd/add-service.sh --python /opt/smell/bin/python
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=systemd/units.sh
source "$here/units.sh"
unit_python='' root='' start=yes web=no rigs=()
while (($#)); do
    case $1 in
        --python | --rig | --root)
            (($# >= 2)) || misused "$1 needs a value."
            ;;&
        --python) unit_python=$2 && shift ;;
        --rig) rigs+=("$2") && shift ;;
        --root) root=$2 && shift ;;
        --web) web=yes ;;
        --no-start) start=no ;;
        -h | --help) usage && exit 0 ;;
        *) misused "there is no option $1." ;;
    esac
    shift
done
[ -n "$unit_python" ] || misused "name the interpreter with --python."
check_rig_names
find_system
check_systemd
cd /
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
put_configuration
# The Debian package has units of its own, which name the interpreter of its environment.
if [ "$unit_python" != /opt/scentd/current/bin/python ] || [ ! -e "$root/lib/systemd/system/scentd.service" ]; then
    check_no_package
    put_units
fi
if [ -z "$root" ]; then
    enable_units || fail "correct /etc/scentd, see the lines above. The service tries again every 5 s."
    [ "$start" = no ] || start_page
fi
say_what_is_installed
