#!/usr/bin/env bash
# Remove what install.sh or add-service.sh installed, and stop the service. Configuration, secrets and state stay, so
# that a later installation continues with them, unless --purge is given. It can be run again.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: sudo /opt/scentd/uninstall.sh [--purge] [--root DIR]

  --purge     also remove configuration, secrets and state: calibration, taught smells, recordings
              and undelivered messages are lost
  --root DIR  remove what was installed below DIR

Example: sudo /opt/scentd/uninstall.sh
TEXT
}

root='' purge=no
while (($#)); do
    case $1 in
        --purge) purge=yes ;;
        --root)
            (($# >= 2)) || { usage >&2 && exit 2; }
            root=$(cd "$2" && pwd) && shift
            ;;
        -h | --help) usage && exit 0 ;;
        *)
            echo "uninstall.sh: there is no option $1." >&2
            usage >&2
            exit 2
            ;;
    esac
    shift
done
[ "$root" != / ] || root=''

[ -n "$root" ] || [ "$(id -u)" -eq 0 ] ||
    { echo "uninstall.sh: only root can do this. Run: sudo $0" >&2 && exit 1; }
if [ -d "$root/opt/scentd" ]; then
    exec 9>>"$root/opt/scentd/.install.lock"
    flock -n 9 || { echo "uninstall.sh: an installation is under way. Try again when it has ended." >&2 && exit 1; }
fi
if [ -z "$root" ]; then
    if [ -d /run/systemd/system ]; then
        # The socket first: it would start the page again.
        systemctl --quiet disable --now scentd-web.socket 2>/dev/null || true
        systemctl --quiet stop scentd-web.service 2>/dev/null || true
        systemctl --quiet disable --now scentd.service 'scentd@*.service' 2>/dev/null || true
        for file in /etc/systemd/system/*.wants/scentd@*.service; do
            [ ! -L "$file" ] || systemctl --quiet disable --now "$(basename "$file")" || true
        done
    fi
fi
# The links of an image, where no systemd runs.
rm -f "$root"/etc/systemd/system/*.wants/scentd.service
rm -f "$root"/etc/systemd/system/*.wants/scentd@*.service
rm -f "$root"/etc/systemd/system/*.wants/scentd-web.socket
rm -f "$root/etc/systemd/system/scentd.service" "$root/etc/systemd/system/scentd@.service"
rm -f "$root"/etc/systemd/system/scentd-web.{service,socket}
rm -f "$root/etc/udev/rules.d/99-scentd.rules" "$root/usr/local/bin/scentd"
# What install.sh put there, and no environment that someone made beside it.
rm -rf "$root"/opt/scentd/releases "$root"/opt/scentd/{current,current.new,uninstall.sh,.install.lock}
[ ! -d "$root/opt/scentd" ] || rmdir --ignore-fail-on-non-empty "$root/opt/scentd"
# With DynamicUser the folders are in private/, and links point to them.
rm -rf "$root"/var/log/{,private/}scentd{,-*}
if [ "$purge" = yes ]; then
    rm -rf "$root"/etc/scentd "$root"/etc/systemd/system/scentd{,@*}.service.d \
        "$root"/etc/systemd/system/scentd-web.{service,socket}.d
    rm -rf "$root"/var/lib/{,private/}scentd{,-*}
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed 'scentd*' 2>/dev/null || true
    udevadm control --reload 2>/dev/null || true
fi
if [ "$purge" = yes ]; then
    echo "scentd is removed, with its configuration and state." >&2
else
    echo "scentd is removed. /etc/scentd and /var/lib/scentd* stay; --purge removes them." >&2
fi
