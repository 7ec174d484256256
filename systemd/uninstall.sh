#!/usr/bin/env bash
# Undo install.sh: stop and remove the service and everything that was installed. Configuration,
# secrets and state stay, so that installing again goes on where it ended, unless --purge says
# otherwise. Can be run again.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: sudo /opt/scentd/uninstall.sh [--purge] [--root DIR]

  --purge     remove configuration, secrets and state as well: calibration, taught smells,
              recordings and what was not delivered yet are gone for good
  --root DIR  what was installed below DIR

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

if [ -z "$root" ]; then
    [ "$(id -u)" -eq 0 ] || { echo "uninstall.sh: this is root's. Run: sudo $0" >&2 && exit 1; }
    if [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now scentd.service 'scentd@*.service' 2>/dev/null || true
        for file in /etc/systemd/system/*.wants/scentd@*.service; do
            [ ! -L "$file" ] || systemctl --quiet disable --now "$(basename "$file")" || true
        done
    fi
fi
# Links of an image, of which no systemd knows.
rm -f "$root"/etc/systemd/system/*.wants/scentd.service
rm -f "$root"/etc/systemd/system/*.wants/scentd@*.service
rm -f "$root/etc/systemd/system/scentd.service" "$root/etc/systemd/system/scentd@.service"
rm -f "$root/etc/udev/rules.d/99-scentd.rules" "$root/usr/local/bin/scentd"
rm -rf "$root/opt/scentd"
# With DynamicUser the folders lie in private/, and links lead to them.
rm -rf "$root"/var/log/{,private/}scentd{,-*}
if [ "$purge" = yes ]; then
    rm -rf "$root"/etc/scentd "$root"/etc/systemd/system/scentd{,@*}.service.d
    rm -rf "$root"/var/lib/{,private/}scentd{,-*}
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed 'scentd*' 2>/dev/null || true
    udevadm control --reload 2>/dev/null || true
fi
if [ "$purge" = yes ]; then
    echo "scentd is gone, with everything it knew." >&2
else
    echo "scentd is removed. /etc/scentd and /var/lib/scentd* stay; --purge removes them." >&2
fi
